//! ICMP errors about translated packets (RFC 5508 section 4.2).

use testbed::packets::{icmp, udp};

use super::{address, back, families, only, out, plane};

#[test]
fn an_error_is_translated_outside_and_inside() {
    let mut plane = plane();
    for [host, own, far] in families() {
        let (router, unreachable, too_big) = match far.is_ipv4() {
            true => (address("203.0.113.254"), (3, 3), (3, 4)),
            false => (address("2001:db8:ff::1"), (1, 4), (2, 0)),
        };
        let asked = udp((host, 5000), (far, 53), 64, b"question");
        let sent = out(&mut plane, &asked);
        let sent = only(&mut plane, sent).packet;
        // From a router on the way, and from the other end itself.
        for (from, kind) in [(router, too_big), (far, unreachable)] {
            for cut in [sent.len(), sent.len() - 8] {
                let told = back(&mut plane, &icmp(from, own, 64, kind, 1400, &sent[..cut]));
                let told = only(&mut plane, told);
                assert_eq!(
                    (told.source, told.target, told.icmp(), told.word()),
                    (from, host, kind, 1400)
                );
                // What the host sent, but for the hop that it has made.
                let quote = told.quote();
                let plain = udp((host, 5000), (far, 53), 63, b"question");
                assert_eq!(quote, &plain[..cut]);
            }
        }
    }
}

#[test]
fn an_error_about_nobody_s_packet_is_dropped() {
    let mut plane = plane();
    let [[_, own, far], _] = families();
    let foreign = udp((own, 5999), (far, 53), 63, b"question");
    assert_eq!(back(&mut plane, &icmp(far, own, 64, (3, 3), 0, &foreign)), []);
    let odd = icmp(far, own, 64, (3, 3), 0, &foreign[..20]);
    assert_eq!(back(&mut plane, &odd), []);
    assert_eq!(plane.dropped("flows/unrelated-error"), 2);
}
