//! Hosts inside this process: smoltcp's TCP/IP stack on channels of frames. Real TCP without root or a kernel.
//!
//! A [`Host`] neither sleeps nor looks at a clock: it is polled with the time. A [`Network`] polls several of them, and
//! what lies between them, in simulated or in real time.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, ChecksumCapabilities, Device, DeviceCapabilities, Medium};
use smoltcp::socket::{icmp, tcp};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpAddress, IpCidr};

use crate::Error;

/// Bytes of the largest IP packet a host sends, if nothing else is said.
const MTU: usize = 1500;
/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// Frames a [`wire`] holds each way; what comes when it is full is lost.
const WIRE_FRAMES: usize = 1024;
/// Bytes of a connection's send and receive buffer each.
const TCP_BUFFER: usize = 64 << 10;
/// Network time a ping is waited for.
const PING_LIMIT: Duration = Duration::from_secs(5);
/// Network time a transfer may take.
const TCP_LIMIT: Duration = Duration::from_secs(60);
/// The identifier of every echo request; the sequence number tells them apart.
const ECHO_IDENTIFIER: u16 = 0x6d67;

/// One end of a cable: whole Ethernet frames without frame check sequence.
#[derive(Clone, Debug)]
pub struct Wire {
    /// Frames for the host at this end.
    pub rx: Receiver<Vec<u8>>,
    /// Frames from the host at this end. When it is full or nobody listens, a frame is lost, as on a cable.
    pub tx: Sender<Vec<u8>>,
}

/// Both ends of a cable that holds 1,024 frames each way.
pub fn wire() -> (Wire, Wire) {
    let (left_tx, right_rx) = crossbeam_channel::bounded(WIRE_FRAMES);
    let (right_tx, left_rx) = crossbeam_channel::bounded(WIRE_FRAMES);
    (
        Wire {
            rx: left_rx,
            tx: left_tx,
        },
        Wire {
            rx: right_rx,
            tx: right_tx,
        },
    )
}

/// A TCP/IP host with one Ethernet device. Answers echo requests, ARP and neighbour discovery by itself.
pub struct Host {
    name: String,
    interface: Interface,
    device: WireDevice,
    sockets: SocketSet<'static>,
    echo: SocketHandle,
    next_sequence: u16,
    next_port: u16,
}

/// A connection of a [`Host`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection(SocketHandle);

impl Host {
    /// A host with this hardware address, addresses with prefix length, and a default route by each gateway.
    pub fn new(mac: [u8; 6], addresses: &[&str], gateways: &[&str], wire: Wire) -> Result<Host, Error> {
        Self::with_mtu(mac, addresses, gateways, wire, MTU)
    }

    /// A host that neither sends nor asks for IP packets of more than `mtu` bytes.
    pub fn with_mtu(
        mac: [u8; 6],
        addresses: &[&str],
        gateways: &[&str],
        wire: Wire,
        mtu: usize,
    ) -> Result<Host, Error> {
        let name = addresses.first().copied().unwrap_or("without address").to_owned();
        let mut device = WireDevice { wire, frames: 0, mtu };
        let mut config = Config::new(EthernetAddress(mac).into());
        config.random_seed = u64::from_le_bytes([mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], 0, 0]);
        let mut interface = Interface::new(config, &mut device, Instant::ZERO);
        for address in addresses {
            let cidr: IpCidr = parse(&name, address)?;
            let mut fits = Ok(());
            interface.update_ip_addrs(|list| fits = list.push(cidr));
            fits.map_err(|_| failed(&name, "it has too many addresses"))?;
        }
        for gateway in gateways {
            let routes = interface.routes_mut();
            let added = match parse(&name, gateway)? {
                IpAddr::V4(via) => routes.add_default_ipv4_route(via).map(drop),
                IpAddr::V6(via) => routes.add_default_ipv6_route(via).map(drop),
            };
            added.map_err(|_| failed(&name, "it has too many routes"))?;
        }
        let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 16], vec![0; 4096]);
        let mut echo = icmp::Socket::new(buffer(), buffer());
        echo.bind(icmp::Endpoint::Ident(ECHO_IDENTIFIER))
            .map_err(|error| failed(&name, error))?;
        let mut sockets = SocketSet::new(Vec::new());
        let echo = sockets.add(echo);
        Ok(Host {
            name,
            interface,
            device,
            sockets,
            echo,
            next_sequence: 0,
            next_port: 49152,
        })
    }

    /// Receives, answers and sends all there is at this time since the start; true if a frame was taken or given.
    pub fn poll(&mut self, now: Duration) -> bool {
        let before = self.device.frames;
        self.interface.poll(instant(now), &mut self.device, &mut self.sockets);
        self.device.frames != before
    }

    /// Sends an echo request and returns its sequence number.
    pub fn send_echo(&mut self, to: IpAddr) -> Result<u16, Error> {
        let sequence = self.next_sequence;
        self.next_sequence = sequence.wrapping_add(1);
        let (ident, seq_no, data) = (ECHO_IDENTIFIER, sequence, &b"margay testbed"[..]);
        let sums = ChecksumCapabilities::default();
        let socket = self.sockets.get_mut::<icmp::Socket>(self.echo);
        let full = |error| failed(&self.name, format!("echo request to {to}: {error}"));
        match to {
            IpAddr::V4(_) => {
                let request = Icmpv4Repr::EchoRequest { ident, seq_no, data };
                let room = socket.send(request.buffer_len(), to.into()).map_err(full)?;
                request.emit(&mut Icmpv4Packet::new_unchecked(room), &sums);
            }
            IpAddr::V6(address) => {
                let request = Icmpv6Repr::EchoRequest { ident, seq_no, data };
                let room = socket.send(request.buffer_len(), to.into()).map_err(full)?;
                let source = self.interface.get_source_address_ipv6(&address);
                request.emit(&source, &address, &mut Icmpv6Packet::new_unchecked(room), &sums);
            }
        }
        Ok(sequence)
    }

    /// The next echo reply: who sent it, and the sequence number of its request.
    pub fn take_echo_reply(&mut self) -> Option<(IpAddr, u16)> {
        let sums = ChecksumCapabilities::default();
        let socket = self.sockets.get_mut::<icmp::Socket>(self.echo);
        while let Ok((bytes, from)) = socket.recv() {
            let sequence = match from {
                IpAddress::Ipv4(_) => match Icmpv4Repr::parse(&Icmpv4Packet::new_checked(bytes).ok()?, &sums) {
                    Ok(Icmpv4Repr::EchoReply { seq_no, .. }) => Some(seq_no),
                    _ => None, // an error message about a request
                },
                IpAddress::Ipv6(source) => {
                    let packet = Icmpv6Packet::new_checked(bytes).ok()?;
                    let own = self.interface.get_source_address_ipv6(&source);
                    match Icmpv6Repr::parse(&source, &own, &packet, &sums) {
                        Ok(Icmpv6Repr::EchoReply { seq_no, .. }) => Some(seq_no),
                        _ => None,
                    }
                }
            };
            if let Some(sequence) = sequence {
                return Some((from.into(), sequence));
            }
        }
        None
    }

    /// Waits for one connection to a port.
    pub fn tcp_listen(&mut self, port: u16) -> Result<Connection, Error> {
        let mut socket = tcp_socket();
        socket
            .listen(port)
            .map_err(|error| failed(&self.name, format!("listen on {port}: {error}")))?;
        Ok(Connection(self.sockets.add(socket)))
    }

    /// Begins to connect, from a port of its own choice.
    pub fn tcp_connect(&mut self, to: SocketAddr) -> Result<Connection, Error> {
        let mut socket = tcp_socket();
        let port = self.next_port;
        self.next_port = port.checked_add(1).unwrap_or(49152);
        let connected = socket.connect(self.interface.context(), (IpAddress::from(to.ip()), to.port()), port);
        connected.map_err(|error| failed(&self.name, format!("connect to {to}: {error}")))?;
        Ok(Connection(self.sockets.add(socket)))
    }

    /// Hands over as much of `bytes` as there is room for, and returns how much that was.
    pub fn tcp_send(&mut self, connection: Connection, bytes: &[u8]) -> Result<usize, Error> {
        let socket = self.sockets.get_mut::<tcp::Socket>(connection.0);
        match socket.state() {
            tcp::State::SynSent | tcp::State::SynReceived | tcp::State::Listen => Ok(0),
            _ => socket
                .send_slice(bytes)
                .map_err(|error| failed(&self.name, format!("send: {error}"))),
        }
    }

    /// Takes what has arrived, at most as much as fits, and returns how much that was; `None` once the other end has
    /// closed and everything is taken.
    pub fn tcp_receive(&mut self, connection: Connection, into: &mut [u8]) -> Result<Option<usize>, Error> {
        let socket = self.sockets.get_mut::<tcp::Socket>(connection.0);
        match socket.state() {
            tcp::State::SynSent | tcp::State::SynReceived | tcp::State::Listen => return Ok(Some(0)),
            _ => {}
        }
        match socket.recv_slice(into) {
            Ok(taken) => Ok(Some(taken)),
            Err(tcp::RecvError::Finished) => Ok(None),
            Err(error) => Err(failed(&self.name, format!("receive: {error}"))),
        }
    }

    /// Says that nothing more will be sent; what was handed over still is.
    pub fn tcp_close(&mut self, connection: Connection) {
        self.sockets.get_mut::<tcp::Socket>(connection.0).close();
    }

    /// Whether both ends have closed and agreed on it.
    pub fn tcp_is_over(&self, connection: Connection) -> bool {
        matches!(
            self.sockets.get::<tcp::Socket>(connection.0).state(),
            tcp::State::Closed | tcp::State::TimeWait
        )
    }

    /// Forgets a connection; whatever the other end still sends to it is answered with a reset.
    pub fn tcp_forget(&mut self, connection: Connection) {
        self.sockets.remove(connection.0);
    }
}

/// Hosts, and what lies between them, run together until a question is answered.
pub struct Network<'a> {
    /// The hosts, by which `ping` and `transfer` number them.
    pub hosts: Vec<Host>,
    clock: Clock,
    now: Duration,
    between: Box<dyn FnMut(Duration) + 'a>,
}

/// Where a network's time comes from.
enum Clock {
    /// Ten microseconds a step while something moves, a hundred while nothing does: the same in every run.
    Simulated,
    /// The system's, for a data plane that runs on threads of its own.
    Real(std::time::Instant),
}

impl<'a> Network<'a> {
    /// A network in simulated time; `between` is called once a step with the time, to move what lies between the hosts.
    pub fn simulated(hosts: Vec<Host>, between: impl FnMut(Duration) + 'a) -> Network<'a> {
        Network {
            hosts,
            clock: Clock::Simulated,
            now: Duration::ZERO,
            between: Box::new(between),
        }
    }

    /// A network in real time.
    pub fn real(hosts: Vec<Host>) -> Network<'a> {
        let clock = Clock::Real(std::time::Instant::now());
        Network {
            hosts,
            clock,
            now: Duration::ZERO,
            between: Box::new(|_| ()),
        }
    }

    /// Sends one echo request from a host and returns the network time until its reply came; 5 s at most.
    pub fn ping(&mut self, from: usize, to: IpAddr) -> Result<Duration, Error> {
        let sequence = self.hosts[from].send_echo(to)?;
        let start = self.now;
        while self.now - start < PING_LIMIT {
            self.step();
            while let Some(reply) = self.hosts[from].take_echo_reply() {
                if reply == (to, sequence) {
                    return Ok(self.now - start);
                }
            }
        }
        Err(failed(
            &self.hosts[from].name,
            format!("{to} did not answer an echo request within {PING_LIMIT:?}"),
        ))
    }

    /// Sends that many bytes over one TCP connection from a host to another, which is reached at `at`, checks each,
    /// closes, and returns the network time it took; 60 s at most.
    pub fn transfer(&mut self, from: usize, to: usize, at: SocketAddr, bytes: usize) -> Result<Duration, Error> {
        let server = self.hosts[to].tcp_listen(at.port())?;
        let client = self.hosts[from].tcp_connect(at)?;
        let done = self.carry((from, client), (to, server), bytes);
        self.hosts[from].tcp_forget(client);
        self.hosts[to].tcp_forget(server);
        done
    }

    /// Runs one step: what lies between the hosts, then each host once. True if a host took or gave a frame.
    pub fn step(&mut self) -> bool {
        (self.between)(self.now);
        let mut moved = false;
        for host in &mut self.hosts {
            moved |= host.poll(self.now);
        }
        match self.clock {
            Clock::Simulated => self.now += Duration::from_micros(if moved { 10 } else { 100 }),
            Clock::Real(start) => {
                if !moved {
                    std::thread::sleep(Duration::from_micros(50));
                }
                self.now = start.elapsed();
            }
        }
        moved
    }

    fn carry(
        &mut self,
        (from, client): (usize, Connection),
        (to, server): (usize, Connection),
        bytes: usize,
    ) -> Result<Duration, Error> {
        let (start, mut sent, mut received) = (self.now, 0, 0);
        let mut buffer = vec![0; TCP_BUFFER];
        while self.now - start < TCP_LIMIT {
            self.step();
            if sent < bytes {
                let chunk: Vec<u8> = (sent..bytes.min(sent + TCP_BUFFER)).map(pattern).collect();
                sent += self.hosts[from].tcp_send(client, &chunk)?;
                if sent == bytes {
                    self.hosts[from].tcp_close(client);
                }
            }
            match self.hosts[to].tcp_receive(server, &mut buffer)? {
                Some(taken) => {
                    if let Some(wrong) = (0..taken).find(|&i| buffer[i] != pattern(received + i)) {
                        let reason = format!("byte {} of the transfer arrived changed", received + wrong);
                        return Err(failed(&self.hosts[to].name, reason));
                    }
                    received += taken;
                }
                None => self.hosts[to].tcp_close(server),
            }
            if received == bytes && self.hosts[from].tcp_is_over(client) && self.hosts[to].tcp_is_over(server) {
                return Ok(self.now - start);
            }
        }
        let reason =
            format!("only {received} of {bytes} bytes arrived within {TCP_LIMIT:?}, or the end was not agreed");
        Err(failed(&self.hosts[to].name, reason))
    }
}

/// What stands at a place of a transfer; its period divides no packet size, so a byte in the wrong place shows.
fn pattern(place: usize) -> u8 {
    (place % 251) as u8
}

/// smoltcp's view of a [`Wire`].
struct WireDevice {
    wire: Wire,
    /// Frames taken and given so far.
    frames: u64,
    /// Bytes of the largest IP packet.
    mtu: usize,
}

struct Taken(Vec<u8>);
struct Giving<'a>(&'a Sender<Vec<u8>>, &'a mut u64);

impl Device for WireDevice {
    type RxToken<'a> = Taken;
    type TxToken<'a> = Giving<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Taken, Giving<'_>)> {
        let frame = self.wire.rx.try_recv().ok()?;
        self.frames += 1;
        Some((Taken(frame), Giving(&self.wire.tx, &mut self.frames)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Giving<'_>> {
        Some(Giving(&self.wire.tx, &mut self.frames))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + ETHERNET;
        capabilities
    }
}

impl phy::RxToken for Taken {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl phy::TxToken for Giving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut frame = vec![0; length];
        let result = write(&mut frame);
        // Lost on a cable that is full or unplugged.
        let _ = self.0.try_send(frame);
        *self.1 += 1;
        result
    }
}

fn tcp_socket() -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(vec![0; TCP_BUFFER]);
    tcp::Socket::new(buffer(), buffer())
}

fn instant(now: Duration) -> Instant {
    Instant::from_micros(now.as_micros() as i64)
}

fn parse<T: std::str::FromStr>(host: &str, text: &str) -> Result<T, Error> {
    text.parse()
        .map_err(|_| failed(host, format!("{text:?} is not an address of the form needed")))
}

fn failed(host: &str, reason: impl Display) -> Error {
    Error::Host {
        host: host.to_owned(),
        reason: reason.to_string(),
    }
}
