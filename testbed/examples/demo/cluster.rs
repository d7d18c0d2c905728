//! One node of a cluster: a service whose backends come and go, and policy that says who may ask it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use testbed::{Child, Error, Host, Lab, Margay};

use super::{LIMIT, heading, say};

/// Answers every request over HTTP with its name.
const SERVER: &str = "\
import http.server, sys
class Name(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(sys.argv[1].encode())
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(('0.0.0.0', 8080), Name).serve_forever()
";

/// The pods; each is 10.`subnet`.0.2.
const PODS: [(&str, u8); 4] = [("shopper", 21), ("stranger", 22), ("web1", 23), ("web2", 24)];
/// The address of the service.
const SERVICE_ADDRESS: &str = "10.96.0.1";

const SERVICE: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop},
 spec: {clusterIP: 10.96.0.1, ports: [{port: 80, targetPort: 8080}]}}
";

/// Only pods labelled `app: shopper` may ask pods labelled `app: web`.
const POLICY: &str = "
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: web, namespace: shop},
 spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress],
  ingress: [{from: [{podSelector: {matchLabels: {app: shopper}}}], ports: [{port: 8080}]}]}}
";

const STAGED: &str = "
{apiVersion: projectcalico.org/v3, kind: StagedGlobalNetworkPolicy, metadata: {name: closed},
 spec: {order: 1, selector: app == 'web', types: [Ingress], ingress: [{action: Deny}]}}
";

/// The node, its pods and what serves in them.
pub struct Cluster {
    pods: Vec<Host>,
    margay: Margay,
    servers: Vec<Child>,
}

impl Cluster {
    /// Sets it up and shows what it does; nothing where a program is missing.
    pub fn demonstrate(lab: &Lab) -> Result<Option<Cluster>, Error> {
        heading("A node of a cluster: pods shopper and stranger, and a service with the backends web1 and web2");
        if let Some(reason) = testbed::need_programs(&["python3", "curl"]) {
            say(format!("Left out: it {reason}."));
            return Ok(None);
        }
        let cluster = Self::new(lab)?;
        cluster.balance()?;
        cluster.police()?;
        Ok(Some(cluster))
    }

    fn new(lab: &Lab) -> Result<Cluster, Error> {
        let node = lab.host("node")?;
        let mut resources = vec![SERVICE.to_owned(), slice(&[23, 24])];
        let mut pods = vec![];
        for (name, subnet) in PODS {
            let pod = lab.host(name)?;
            let device = format!("{name}0");
            lab.link((&pod, "eth0", [&format!("10.{subnet}.0.2/24")]), (&node, &device, []))?;
            pod.route("default", &format!("10.{subnet}.0.1"))?;
            resources.push(endpoint(name, subnet));
            pods.push(pod);
        }
        let margay = lab.margay(&node, &resources.join("---\n"), &[])?;
        let servers = pods[2..].iter().zip(&PODS[2..]);
        let servers = servers.map(|(pod, (name, _))| pod.spawn(["python3", "-c", SERVER, name]));
        let servers = servers.collect::<Result<_, _>>()?;
        let cluster = Cluster { pods, margay, servers };
        for address in ["10.23.0.2:8080", "10.24.0.2:8080"] {
            cluster.wait_for(address)?;
        }
        Ok(cluster)
    }

    /// Ends it.
    pub fn stop(mut self) -> Result<(), Error> {
        self.servers.iter_mut().for_each(Child::kill);
        self.margay.stop().map(drop)
    }

    /// Leaves it running, and says what to try.
    pub fn keep(self) {
        let (program, socket) = (self.margay.binary().display(), self.margay.socket().display());
        for command in [
            "show services",
            "show policies",
            "show flows",
            "explain --from shop/stranger --to shop/web1 --proto tcp --port 8080",
        ] {
            say(format!("{program} {command} --socket {socket}"));
        }
        let shopper = self.pods[0].namespace();
        say(format!("ip netns exec {shopper} curl http://{SERVICE_ADDRESS}/"));
        self.servers.into_iter().for_each(Child::leave);
        self.margay.child.leave();
    }

    fn balance(&self) -> Result<(), Error> {
        say(format!(
            "shopper asks http://{SERVICE_ADDRESS}/ 40 times: {}",
            self.ask_often()?
        ));
        self.margay.apply(&slice(&[24]))?;
        say(format!(
            "web1 leaves the service, and shopper asks again: {}",
            self.ask_often()?
        ));
        self.margay.apply(&slice(&[]))?;
        let before = Instant::now();
        let answer = ask(&self.pods[0], SERVICE_ADDRESS)?;
        let said = answer.map_or_else(|| "refused".to_owned(), |name| format!("answered by {name}"));
        say(format!(
            "Nobody is left, and the question is {said} after {:.0?}.",
            before.elapsed()
        ));
        self.margay.apply(&slice(&[23, 24]))?;
        self.print("What margay show services says with both back", &["show", "services"])
    }

    fn police(&self) -> Result<(), Error> {
        heading("Policy: kubectl's NetworkPolicy lets only shopper ask");
        self.margay.apply(POLICY)?;
        for pod in &self.pods[..2] {
            let said = match ask(pod, SERVICE_ADDRESS)? {
                Some(name) => format!("is answered by {name}"),
                None => "waits in vain".to_owned(),
            };
            say(format!("{} {said}.", pod.name()));
        }
        self.margay.apply(STAGED)?;
        say("A staged policy that would close the service to all is applied, too; it only watches.");
        for (name, _) in &PODS[..2] {
            let from = format!("shop/{name}");
            let question = [
                "explain",
                "--from",
                &from,
                "--to",
                "shop/web1",
                "--proto",
                "tcp",
                "--port",
                "8080",
            ];
            self.print(&format!("margay {}", question.join(" ")), &question)?;
        }
        self.print("margay show policies", &["show", "policies"])
    }

    fn print(&self, title: &str, command: &[&str]) -> Result<(), Error> {
        heading(title);
        print!("{}", self.margay.command(command.iter().copied())?.stdout);
        Ok(())
    }

    /// Who answered how often.
    fn ask_often(&self) -> Result<String, Error> {
        let mut answers = BTreeMap::<String, u32>::new();
        for _ in 0..40 {
            let name = ask(&self.pods[0], SERVICE_ADDRESS)?.unwrap_or_else(|| "nobody".to_owned());
            *answers.entry(name).or_default() += 1;
        }
        let said: Vec<String> = answers.iter().map(|(name, times)| format!("{name} {times}")).collect();
        Ok(format!("{} times.", said.join(", ")))
    }

    fn wait_for(&self, address: &str) -> Result<(), Error> {
        let deadline = Instant::now() + LIMIT;
        while ask(&self.pods[0], address)?.is_none() {
            if Instant::now() > deadline {
                let reason = format!("it did not answer within {LIMIT:?}");
                return Err(Error::Nonsense {
                    command: address.to_owned(),
                    reason,
                });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

/// The server that answers, if one does within a second.
fn ask(from: &Host, to: &str) -> Result<Option<String>, Error> {
    let line = format!("curl --silent --max-time 1 http://{to}/ || true");
    let answer = from.run(["sh", "-c", &line])?.stdout;
    Ok(Some(answer.trim().to_owned()).filter(|answer| !answer.is_empty()))
}

/// The port to a pod, and its endpoint.
fn endpoint(name: &str, subnet: u8) -> String {
    let app = name.trim_end_matches(char::is_numeric);
    format!(
        "{{apiVersion: margay/v1, kind: Port, metadata: {{name: {name}}}, spec: {{device: {name}0, addresses: [10.{subnet}.0.1/24]}}}}
---
{{apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, metadata: {{name: {name}, namespace: shop, labels: {{app: {app}}}}},
 spec: {{orchestrator: k8s, node: node, pod: {name}, endpoint: eth0, interfaceName: {name}0, ipNetworks: [10.{subnet}.0.2/32], profiles: [kns.shop]}}}}
"
    )
}

/// The endpoints of the service, by their subnets.
fn slice(subnets: &[u8]) -> String {
    let endpoints: Vec<String> = subnets
        .iter()
        .map(|subnet| format!("{{addresses: [10.{subnet}.0.2]}}"))
        .collect();
    format!(
        "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, ports: [{{port: 8080}}],
  metadata: {{name: web, namespace: shop, labels: {{kubernetes.io/service-name: web}}}}, endpoints: [{}]}}
",
        endpoints.join(", ")
    )
}
