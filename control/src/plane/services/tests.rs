use super::*;
use crate::resource::{Source, read};
use crate::store::{Request, Store};
use fastpath::wire::protocol;

struct Setup {
    store: Store,
    balancing: Balancing,
}

impl Setup {
    fn new() -> Self {
        let place = Place {
            node: "here".to_owned(),
            named: true,
            zone: None,
        };
        Self {
            store: Store::default(),
            balancing: Balancing::new(place),
        }
    }

    fn apply(&mut self, yaml: &str) -> bool {
        let documents = read(&[Source::file("a.yaml", yaml)]).unwrap();
        let plan = self.store.plan(Request::Apply(documents)).unwrap();
        let changed = self.balancing.apply(&plan);
        self.store.commit(&plan);
        changed
    }

    fn delete(&mut self, yaml: &str) {
        let named = crate::resource::read_keys(&[Source::file("a.yaml", yaml)]).unwrap();
        let plan = self.store.plan(Request::Delete(named)).unwrap();
        self.balancing.apply(&plan);
        self.store.commit(&plan);
    }

    /// Backends at an address, with whether they get connections.
    fn backends(&self, address: [u8; 4], port: u16) -> Option<Vec<(String, bool)>> {
        let services = self.balancing.book.published();
        let (_, pool) = services.find(VRF, &Endpoint::v4(address, port), protocol::TCP)?;
        let shares = pool.shares();
        let mut backends: Vec<_> = shares
            .map(|(backend, slots)| (backend.member.endpoint.ip().to_string(), slots > 0))
            .collect();
        backends.sort();
        Some(backends)
    }
}

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.1, type: NodePort, ports: [{port: 80, nodePort: 30080}]}
";

fn slice(name: &str, service: &str, endpoints: &str) -> String {
    format!(
        "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, namespace: shop, labels: {{kubernetes.io/service-name: {service}}}}}
addressType: IPv4
ports: [{{port: 8080}}]
endpoints: [{endpoints}]
"
    )
}

const VIP: [u8; 4] = [10, 96, 0, 1];

fn got(list: &[(&str, bool)]) -> Option<Vec<(String, bool)>> {
    Some(
        list.iter()
            .map(|(address, gets)| ((*address).to_owned(), *gets))
            .collect(),
    )
}

#[test]
fn services_and_slices_come_in_any_order_and_go() {
    let mut setup = Setup::new();
    assert!(
        !setup.apply(&slice("web-1", "web", "{addresses: [10.1.0.1]}")),
        "nobody asks for it"
    );
    assert_eq!(setup.backends(VIP, 80), None);
    assert!(setup.apply(SERVICE));
    assert_eq!(setup.backends(VIP, 80), got(&[("10.1.0.1", true)]));
    let ending = "{addresses: [10.1.0.2], conditions: {ready: false, terminating: true, serving: true}}";
    setup.apply(&slice("web-2", "web", ending));
    assert_eq!(setup.backends(VIP, 80), got(&[("10.1.0.1", true), ("10.1.0.2", false)]));
    // The slice becomes another service's.
    setup.apply(&slice("web-1", "other", "{addresses: [10.1.0.1]}"));
    assert_eq!(setup.backends(VIP, 80), got(&[("10.1.0.2", true)]));
    assert!(!setup.apply(SERVICE), "unchanged");
    setup.delete(&slice("web-2", "web", ending));
    assert_eq!(setup.backends(VIP, 80), got(&[]));
    setup.delete(SERVICE);
    assert_eq!(setup.backends(VIP, 80), None);
    assert!(setup.balancing.views().is_empty());
}

#[test]
fn a_changed_service_leaves_nothing_behind() {
    let mut setup = Setup::new();
    setup.apply(&format!(
        "{SERVICE}---{}",
        slice("web-1", "web", "{addresses: [10.1.0.1]}")
    ));
    let ours: IpAddr = [192, 0, 2, 1].into();
    assert!(setup.balancing.set_addresses([(VRF, ours)].into_iter()));
    assert!(setup.backends([192, 0, 2, 1], 30_080).is_some());
    setup.apply(&SERVICE.replace("10.96.0.1", "10.96.0.2").replace("30080", "30081"));
    assert_eq!(setup.backends(VIP, 80), None);
    assert_eq!(setup.backends([10, 96, 0, 2], 80), got(&[("10.1.0.1", true)]));
    assert_eq!(setup.backends([192, 0, 2, 1], 30_080), None);
    assert!(setup.backends([192, 0, 2, 1], 30_081).is_some());
    assert_eq!(setup.balancing.book.published().len(), 2);
}

#[test]
fn the_view_names_frontends_and_shares() {
    let mut setup = Setup::new();
    let two = "{addresses: [10.1.0.1], nodeName: here}, {addresses: [10.1.0.2], nodeName: there}";
    setup.apply(&format!("{SERVICE}---{}", slice("web-1", "web", two)));
    let views = setup.balancing.views();
    let [service] = &views[..] else { panic!("{views:?}") };
    assert_eq!((service.namespace.as_str(), service.name.as_str()), ("shop", "web"));
    let [pool] = &service.pools[..] else {
        panic!("{views:?}")
    };
    assert_eq!(pool.frontends, ["*:30080", "10.96.0.1:80"]);
    let shares: Vec<f64> = pool.backends.iter().map(|backend| backend.share_percent).collect();
    assert!(shares.iter().all(|share| (share - 50.0).abs() < 1.0), "{shares:?}");
    let text = crate::show::services::table(&views);
    assert!(
        text.contains("service shop/web (NodePort)") && text.contains("10.1.0.2:8080  there"),
        "{text}"
    );
}
