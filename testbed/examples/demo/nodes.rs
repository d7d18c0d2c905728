//! Two nodes whose pods' traffic is encrypted between them, and a laptop that comes in from outside.

use std::path::PathBuf;

use control::keys::{PublicKey, Secret};
use testbed::wireguard_peer::{Tunnel, WIREGUARD_GO};
use testbed::{Child, Error, Host, Lab, Margay, WireguardPeer, golden};

use super::{LIMIT, heading, iperf, ping, say};

/// Said by the pods; to be read nowhere between.
const SECRET: &str = "confidential";
/// The UDP port of WireGuard.
const PORT: u16 = 51820;
/// What the laptop's addresses end in.
const LAPTOP: u8 = 3;

/// A pod, and the node it is on.
struct Node {
    number: u8,
    pod: Host,
    host: Host,
    public_key: PublicKey,
}

/// Two nodes, and the laptop where it can be had.
pub struct Nodes {
    nodes: [Node; 2],
    margays: [Margay; 2],
    laptop: Option<(Host, WireguardPeer)>,
}

impl Nodes {
    /// Sets them up and shows what they do.
    pub fn demonstrate(lab: &Lab) -> Result<Nodes, Error> {
        heading("Two nodes, each with a pod (10.11.0.2 and 10.12.0.2) and Margay; a WireGuard tunnel between them");
        let switch = lab.host("switch")?;
        switch.run(["ip", "link", "add", "br0", "type", "bridge", "mcast_snooping", "0"])?;
        switch.run(["ip", "link", "set", "br0", "up"])?;
        let nodes = [Node::new(lab, &switch, 1)?, Node::new(lab, &switch, 2)?];
        let laptop_key = Secret::private();
        let margays = [
            nodes[0].start(lab, &nodes[1], laptop_key.public())?,
            nodes[1].start(lab, &nodes[0], laptop_key.public())?,
        ];
        say("Keys are made and read from files; the nodes know each other's public keys.");
        say("On the wire between them listens tcpdump.");
        let capture = Capture::start(lab, &switch)?;
        ping(&nodes[0].pod, ["10.12.0.2", "fd00:12::2"])?;
        speak(&nodes[0].pod)?;
        heading("TCP through the tunnel: pod1 sends to pod2 with iperf3");
        if let Some((rate, again)) = iperf(&nodes[0].pod, (&nodes[1].pod, "10.12.0.2"))? {
            say(format!("{rate:.2} Gbit/s, {again} segments sent again"));
        }
        if let Some(capture) = capture {
            capture.tell()?;
        }
        let laptop = laptop(lab, &switch, &nodes, &laptop_key)?;
        heading("What node1 says of its tunnel (margay show wireguard)");
        print!("{}", margays[0].command(["show", "wireguard"])?.stdout);
        Ok(Nodes { nodes, margays, laptop })
    }

    /// Ends it.
    pub fn stop(self) -> Result<(), Error> {
        for margay in self.margays {
            margay.stop()?;
        }
        Ok(())
    }

    /// Leaves it running, and says what to try.
    pub fn keep(self) {
        for (node, margay) in self.nodes.iter().zip(self.margays) {
            let (program, socket) = (margay.binary().display(), margay.socket().display());
            let host = node.host.name();
            say(format!("{program} show wireguard --socket {socket}   # {host}"));
            margay.child.leave();
        }
        let pod = self.nodes[0].pod.namespace();
        say(format!(
            "ip netns exec {pod} ping 10.12.0.2    # from pod1 to pod2, encrypted"
        ));
        if let Some((host, tunnel)) = self.laptop {
            say(format!(
                "ip netns exec {} ping 10.12.0.2   # from the laptop to pod2, by node1",
                host.namespace()
            ));
            tunnel.child.leave();
        }
    }
}

impl Node {
    fn new(lab: &Lab, switch: &Host, number: u8) -> Result<Node, Error> {
        let (pod, host) = (lab.host(&format!("pod{number}"))?, lab.host(&format!("node{number}"))?);
        let (v4, v6) = (format!("10.1{number}.0.2/24"), format!("fd00:1{number}::2/64"));
        lab.link((&pod, "eth0", [&v4, &v6]), (&host, "pod0", []))?;
        pod.route("default", &format!("10.1{number}.0.1"))?;
        pod.route("default", &format!("fd00:1{number}::1"))?;
        let plug = format!("node{number}");
        lab.link((&host, "wire0", []), (switch, &plug, []))?;
        switch.run(["ip", "link", "set", &plug, "master", "br0"])?;
        let (key, path) = (Secret::private(), key_file(lab, number));
        key.write(&path).map_err(|source| Error::File { path, source })?;
        let public_key = key.public();
        Ok(Node {
            number,
            pod,
            host,
            public_key,
        })
    }

    /// Margay on this node; the first knows the laptop, and the second that it is behind the first.
    fn start(&self, lab: &Lab, other: &Node, laptop: PublicKey) -> Result<Margay, Error> {
        let (number, other_number) = (self.number, other.number);
        let behind_other = if number == 2 { ", 10.9.0.3/32" } else { "" };
        let mut resources = format!(
            "apiVersion: margay/v1\nkind: Port\nmetadata: {{ name: pod }}\n\
             spec: {{ device: pod0, addresses: [10.1{number}.0.1/24, 'fd00:1{number}::1/64'] }}\n---\n\
             apiVersion: margay/v1\nkind: Port\nmetadata: {{ name: wire }}\n\
             spec: {{ device: wire0, addresses: [192.0.2.{number}/24] }}\n---\n\
             apiVersion: margay/v1\nkind: WireguardInterface\nmetadata: {{ name: wg0 }}\n\
             spec: {{ privateKeyFile: {key}, clampMSS: true }}\n---\n\
             apiVersion: margay/v1\nkind: WireguardPeer\nmetadata: {{ name: node{other_number} }}\n\
             spec: {{ interface: wg0, publicKey: '{other_key}', endpoint: '192.0.2.{other_number}:{PORT}', \
             allowedIPs: [10.1{other_number}.0.0/24, 'fd00:1{other_number}::/64'{behind_other}] }}\n",
            key = key_file(lab, number).display(),
            other_key = other.public_key,
        );
        if number == 1 {
            resources.push_str(&format!(
                "---\napiVersion: margay/v1\nkind: WireguardPeer\nmetadata: {{ name: laptop }}\n\
                 spec: {{ interface: wg0, publicKey: '{laptop}', allowedIPs: [10.9.0.3/32] }}\n"
            ));
        }
        lab.margay(&self.host, &resources, &[])
    }
}

fn key_file(lab: &Lab, number: u8) -> PathBuf {
    lab.folder().join(format!("node{number}.key"))
}

/// Pods say something that is easy to find where it can be read.
fn speak(pod: &Host) -> Result<(), Error> {
    let pattern: String = SECRET.bytes().map(|byte| format!("{byte:02x}")).collect();
    pod.run(["ping", "-c5", "-i0.1", "-p", &pattern, "10.12.0.2"]).map(drop)
}

/// What is listened to on the wire.
struct Capture {
    tcpdump: Child,
    file: PathBuf,
}

impl Capture {
    fn start(lab: &Lab, switch: &Host) -> Result<Option<Capture>, Error> {
        if let Some(reason) = testbed::need_programs(&["tcpdump"]) {
            say(format!("The capture is left out: it {reason}."));
            return Ok(None);
        }
        let file = lab.folder().join("wire.pcap");
        let path = file.to_string_lossy();
        let words = ["tcpdump", "-i", "node2", "-Z", "root", "-U", "-w", &path];
        let mut tcpdump = switch.spawn(words)?;
        tcpdump.wait_for_line("listening on", LIMIT)?;
        Ok(Some(Capture { tcpdump, file }))
    }

    /// Says what was on the wire.
    fn tell(mut self) -> Result<(), Error> {
        self.tcpdump.stop()?;
        let frames = golden::read(&self.file)?;
        let count = |is: &dyn Fn(&[u8]) -> bool| frames.iter().filter(|frame| is(frame)).count();
        let wireguard = count(&is_wireguard);
        let arp = count(&|frame| frame.get(12..14) == Some(&[8, 6]));
        let readable = count(&|frame| frame.windows(SECRET.len()).any(|bytes| bytes == SECRET.as_bytes()));
        heading("What was on the wire between the nodes meanwhile");
        say(format!(
            "{} frames: {wireguard} UDP of port {PORT}, {arp} ARP, {} others.",
            frames.len(),
            frames.len() - wireguard - arp
        ));
        say(format!(
            "Pods said \"{SECRET}\" ten times in pings: it can be read in {readable} frames."
        ));
        Ok(())
    }
}

/// UDP over IPv4 between the ports of WireGuard.
fn is_wireguard(frame: &[u8]) -> bool {
    let port = PORT.to_be_bytes();
    let ports = [port[0], port[1], port[0], port[1]];
    frame.get(12..14) == Some(&[8, 0]) && frame.get(23) == Some(&17) && frame.get(34..38) == Some(&ports)
}

/// Somebody on the road: wireguard-go, with node1 as its only peer.
fn laptop(lab: &Lab, switch: &Host, nodes: &[Node; 2], key: &Secret) -> Result<Option<(Host, WireguardPeer)>, Error> {
    heading("A laptop with wireguard-go (10.9.0.3) joins: node1 is its peer, and it reaches the pods of both nodes");
    if let Some(reason) = testbed::need_programs(&["wireguard-go", "wg"]) {
        say(format!("Left out: it {reason}."));
        return Ok(None);
    }
    let host = lab.host("laptop")?;
    lab.link((&host, "eth0", ["192.0.2.3/24"]), (switch, "laptop", []))?;
    switch.run(["ip", "link", "set", "laptop", "master", "br0"])?;
    let settings = format!(
        "[Interface]\nPrivateKey = {}\nListenPort = {PORT}\n[Peer]\nPublicKey = {}\n\
         AllowedIPs = 10.11.0.0/24, 10.12.0.0/24\nEndpoint = 192.0.2.1:{PORT}\nPersistentKeepalive = 25\n",
        *key.text(),
        nodes[0].public_key
    );
    let tunnel = Tunnel {
        device: "wg0",
        settings: &settings,
        addresses: &[&format!("10.9.0.{LAPTOP}/32")],
        mtu: 1420,
    };
    let tunnel = lab.wireguard(&host, WIREGUARD_GO, tunnel)?;
    // The second way leads through two tunnels.
    for (pod, to) in [("pod1", "10.11.0.2"), ("pod2", "10.12.0.2")] {
        let output = host.run(["ping", "-c3", "-i0.2", "-W10", to])?.stdout;
        let summary = output.lines().find(|line| line.contains("packets transmitted"));
        say(format!("{pod} ({to}): {}", summary.unwrap_or_default()));
    }
    Ok(Some((host, tunnel)))
}
