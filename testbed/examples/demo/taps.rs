//! Two hosts whose only device is a TAP of Margay's, as a container's or a virtual machine's would be.

use testbed::{Error, Host, Lab, Margay};

use super::{heading, iperf, ping, say};

/// The hosts, and Margay between.
pub struct Taps {
    hosts: [Host; 2],
    margay: Margay,
}

impl Taps {
    /// Sets them up and shows what they do.
    pub fn demonstrate(lab: &Lab) -> Result<Taps, Error> {
        heading("Two hosts behind TAPs, guest1 (10.21.0.2) and guest2 (10.22.0.2): Margay makes their devices");
        let (hosts, hypervisor) = ([lab.host("guest1")?, lab.host("guest2")?], lab.host("hypervisor")?);
        let resources: Vec<String> = (1..).zip(&hosts).map(port).collect();
        let margay = lab.margay(&hypervisor, &resources.concat(), &[])?;
        for (number, host) in (1..).zip(&hosts) {
            host.route("default", &format!("10.2{number}.0.1"))?;
            host.route("default", &format!("fd00:2{number}::1"))?;
        }
        let [one, two] = &hosts;
        ping(one, ["10.22.0.2", "fd00:22::2"])?;
        heading("TCP through Margay: guest1 sends to guest2 with iperf3");
        let before = two.counters("eth0")?;
        if let Some((rate, again)) = iperf(one, (two, "10.22.0.2"))? {
            say(format!("{rate:.2} Gbit/s, {again} segments sent again"));
            let after = two.counters("eth0")?;
            let packets = (after.rx_packets - before.rx_packets).max(1);
            let bytes = (after.rx_bytes - before.rx_bytes) / packets;
            say(format!(
                "guest2 got pieces of {bytes} bytes on average: cut to frames on the way in, joined on the way out."
            ));
        }
        Ok(Taps { hosts, margay })
    }

    /// Ends it.
    pub fn stop(self) -> Result<(), Error> {
        self.margay.stop().map(drop)
    }

    /// Leaves it running, and says what to try.
    pub fn keep(self) {
        let (program, socket) = (self.margay.binary().display(), self.margay.socket().display());
        say(format!("{program} show ports --socket {socket}   # two TAPs"));
        say(format!(
            "ip netns exec {} ping 10.22.0.2   # from one TAP to the other",
            self.hosts[0].namespace()
        ));
        self.margay.child.leave();
    }
}

/// The port that makes a host's device, with the host's addresses and Margay's.
fn port((number, host): (u8, &Host)) -> String {
    let (name, netns) = (host.name(), host.namespace());
    format!(
        "---\napiVersion: margay/v1\nkind: Port\nmetadata: {{ name: {name} }}\nspec:\n  \
         {{ device: eth0, driver: tap, netns: {netns}, addresses: [10.2{number}.0.1/24, 'fd00:2{number}::1/64'], \
         hostAddresses: [10.2{number}.0.2/24, 'fd00:2{number}::2/64'] }}\n"
    )
}
