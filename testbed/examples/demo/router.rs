//! A router between two hosts: both families, a file, throughput, and the way of one packet.

use std::path::Path;
use std::time::Instant;

use testbed::{Child, Error, Host, Lab, Margay};

use super::{LIMIT, SECONDS, heading, iperf, ping, say};

/// Bytes of the file that is fetched.
const FILE_BYTES: u64 = 100_000_000;

const RESOURCES: &str = "\
apiVersion: margay/v1
kind: Port
metadata: { name: left }
spec: { device: left0, addresses: [10.1.0.1/24, 'fd00:1::1/64'] }
---
apiVersion: margay/v1
kind: Port
metadata: { name: right }
spec: { device: right0, addresses: [10.2.0.1/24, 'fd00:2::1/64'] }
";

/// Two hosts with Margay between them.
pub struct Router {
    left: Host,
    router: Host,
    margay: Margay,
}

impl Router {
    /// Sets them up and shows what they do.
    pub fn demonstrate(lab: &Lab) -> Result<Router, Error> {
        let (left, right) = (lab.host("left")?, lab.host("right")?);
        let router = lab.host("router")?;
        lab.link((&left, "eth0", ["10.1.0.2/24", "fd00:1::2/64"]), (&router, "left0", []))?;
        lab.link(
            (&right, "eth0", ["10.2.0.2/24", "fd00:2::2/64"]),
            (&router, "right0", []),
        )?;
        for (host, net) in [(&left, 1), (&right, 2)] {
            host.route("default", &format!("10.{net}.0.1"))?;
            host.route("default", &format!("fd00:{net}::1"))?;
        }
        heading(
            "Two hosts, left (10.1.0.2, fd00:1::2) and right (10.2.0.2, fd00:2::2), with Margay as the router between",
        );
        let before = Instant::now();
        let margay = lab.margay(&router, RESOURCES, &[])?;
        say(format!("Margay was ready {:.0?} after its start.", before.elapsed()));
        say("The kernel of the router forwards nothing: whatever arrives went through Margay's graph.");

        ping(&left, ["10.2.0.2", "fd00:2::2"])?;
        fetch(lab, &left, &right)?;
        measure(&left, &right, &margay)?;
        trace(&left, &margay)?;
        heading("What each node of the graph did (margay show runtime)");
        print!("{}", margay.command(["show", "runtime"])?.stdout);
        Ok(Router { left, router, margay })
    }

    /// Ends it.
    pub fn stop(self) -> Result<(), Error> {
        self.margay.stop().map(drop)
    }

    /// Leaves it running, and says what to try.
    pub fn keep(self) {
        let (left, router) = (self.left.namespace(), self.router.namespace());
        say(format!("export MARGAY_SOCKET={}", self.margay.socket().display()));
        let program = self.margay.binary().display();
        for command in [
            "show ports",
            "show runtime",
            "show drops",
            "trace add --count 5",
            "trace show",
        ] {
            say(format!("{program} {command}"));
        }
        say(format!("ip netns exec {left} ping 10.2.0.2"));
        say(format!(
            "ip netns exec {left} bash             # a shell on the left host"
        ));
        say(format!(
            "ip netns exec {router} ip link        # the devices Margay has taken"
        ));
        self.margay.child.leave();
    }
}

/// Fetches a file over HTTP; without nginx it says so and goes on.
fn fetch(lab: &Lab, left: &Host, right: &Host) -> Result<(), Error> {
    heading("A file of 100 MB over HTTP: left fetches it from right with curl");
    if let Some(reason) = testbed::need_programs(&["nginx", "curl"]) {
        say(format!("Left out: it {reason}."));
        return Ok(());
    }
    let _server = serve(lab, right)?;
    let format = "%{size_download} %{time_total}";
    let url = "http://10.2.0.2/file";
    let retry = [
        "--retry",
        "50",
        "--retry-delay",
        "0",
        "--retry-connrefused",
        "--retry-max-time",
        "10",
    ];
    let mut argv = vec![
        "curl",
        "--silent",
        "--show-error",
        "--fail",
        "--output",
        "/dev/null",
        "--write-out",
        format,
    ];
    argv.extend(retry);
    argv.push(url);
    let output = left.run_within(LIMIT, argv)?.stdout;
    let numbers: Vec<f64> = output
        .split_ascii_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    match numbers[..] {
        [bytes, seconds] if bytes == FILE_BYTES as f64 => {
            say(format!(
                "{bytes} bytes in {seconds:.2} s: {:.2} Gbit/s",
                bytes * 8e-9 / seconds
            ));
            Ok(())
        }
        _ => Err(Error::Nonsense {
            command: url.to_owned(),
            reason: format!("not {FILE_BYTES} bytes came: {output}"),
        }),
    }
}

fn serve(lab: &Lab, right: &Host) -> Result<Child, Error> {
    let folder = lab.folder();
    let write = |name: &str, act: &dyn Fn(&Path) -> std::io::Result<()>| {
        let path = folder.join(name);
        act(&path).map_err(|source| Error::File { path, source })
    };
    write("file", &|path| std::fs::File::create(path)?.set_len(FILE_BYTES))?;
    let folder = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {folder}/{name};"))
        .concat();
    let settings = format!(
        "user root; daemon off; pid {folder}/nginx.pid; error_log stderr; events {{}}
         http {{ access_log off; sendfile on; {temporary} server {{ listen 80; root {folder}; }} }}"
    );
    write("nginx.conf", &|path| std::fs::write(path, &settings))?;
    right.spawn([
        "nginx",
        "-p",
        &format!("{folder}"),
        "-c",
        &format!("{folder}/nginx.conf"),
    ])
}

fn measure(left: &Host, right: &Host, margay: &Margay) -> Result<(), Error> {
    heading(format!("TCP for {SECONDS} seconds: left sends to right with iperf3"));
    let before = margay.cpu()?;
    let Some((rate, again)) = iperf(left, (right, "10.2.0.2"))? else {
        return Ok(());
    };
    let after = margay.cpu()?;
    say(format!(
        "{rate:.2} Gbit/s with segmentation offload off, {again} segments sent again"
    ));
    let (user, system) = (after.0 - before.0, after.1 - before.1);
    say(format!(
        "Margay used {user:.1?} of processor time in user mode and {system:.1?} in the kernel for it."
    ));
    Ok(())
}

fn trace(left: &Host, margay: &Margay) -> Result<(), Error> {
    heading("The way of one packet (margay trace): an echo request of left, and its reply");
    margay.command(["trace", "add", "--count", "2"])?;
    left.run(["ping", "-c1", "10.2.0.2"])?;
    print!("{}", margay.command(["trace", "show"])?.stdout);
    margay.command(["trace", "clear"]).map(drop)
}
