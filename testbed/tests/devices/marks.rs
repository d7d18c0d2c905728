//! Marks as the world sees them: what a pod and what the host itself sends there has those that are written.

use testbed::{Child, Host, need};

use super::punt::Node;
use super::router;

/// Says of each datagram in which traffic class it came.
const LISTENER: &str = "\
import socket
listener = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
listener.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
listener.bind(('::', 7000))
print('ready', flush=True)
while True:
    word, ancillary, _, _ = listener.recvmsg(100, 100)
    classes = [int.from_bytes(data, 'little') for _, kind, data in ancillary if kind in (socket.IPV6_TCLASS, socket.IP_TOS)]
    print(word.decode(), classes[0] >> 2, classes[0] & 3, flush=True)
";

/// Sends a word in the class 0x01: capable of saying that there is congestion.
const SPEAKER: &str = "\
import socket, sys
for address in sys.argv[2:]:
    family = socket.AF_INET6 if ':' in address else socket.AF_INET
    speaker = socket.socket(family, socket.SOCK_DGRAM)
    speaker.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 1)
    if family == socket.AF_INET6:
        speaker.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 1)
    speaker.sendto(f'{sys.argv[1]}-{family}'.encode(), (address, 7000))
";

const ENDPOINT: &str = "\
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: { name: uplink, annotations: { qos.projectcalico.org/dscp: CS6 } }
spec: { interfaceName: uplink, profiles: [projectcalico-default-allow] }
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: { name: left }
spec: { interfaceName: left, profiles: [projectcalico-default-allow] }
---
apiVersion: projectcalico.org/v3
kind: Profile
metadata: { name: projectcalico-default-allow }
spec: { ingress: [{ action: Allow }], egress: [{ action: Allow }] }
";

fn listen(host: &Host) -> Child {
    let mut listener = host.spawn(["python3", "-uc", LISTENER]).unwrap();
    listener.wait_for_line("ready", router::LIMIT).unwrap();
    listener
}

/// What is heard of a word sent to these addresses, one of each family, has this mark.
fn is_heard(from: &Host, word: &str, to: [&str; 2], listener: &mut Child, dscp: u8) {
    router::reaches(from, to[0]);
    router::reaches(from, to[1]);
    from.run(["python3", "-c", SPEAKER, word, to[0], to[1]]).unwrap();
    for _ in to {
        let line = listener
            .wait_for(word, router::LIMIT, |line| line.starts_with(word))
            .unwrap();
        assert!(
            line.ends_with(&format!(" {dscp} 1")),
            "{line}; expected the mark {dscp}"
        );
    }
}

#[test]
fn the_world_sees_the_marks_of_pods_and_of_the_host() {
    need!("ping", "curl", "python3");
    let node = Node::new();
    let margay = node.start_with_tap();
    let (mut world, mut pod) = (listen(&node.world), listen(&node.net.left));
    let (to_world, to_pod) = (["10.4.0.2", "fd00:4::2"], ["10.1.0.2", "fd00:1::2"]);
    is_heard(&node.net.left, "plain", to_world, &mut world, 0);
    is_heard(&node.net.router, "plain-host", to_world, &mut world, 0);
    margay
        .apply(&router::PORTS.replace("left0, ", "left0, qos: { dscp: AF21 }, "))
        .unwrap();
    margay.apply(ENDPOINT).unwrap();
    is_heard(&node.net.left, "pod", to_world, &mut world, 18);
    is_heard(&node.net.router, "host", to_world, &mut world, 48);
    is_heard(&node.world, "answer", to_pod, &mut pod, 0);
    margay.stop().unwrap();
}
