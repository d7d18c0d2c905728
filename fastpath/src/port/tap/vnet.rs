//! The header a TAP device puts before each packet: what is left to do to it.

/// Bytes of the header (`struct virtio_net_hdr`, Linux include/uapi/linux/virtio_net.h).
pub const VNET_HEADER: usize = 10;

/// The transport checksum field holds the sum of the pseudo header only (`VIRTIO_NET_HDR_F_NEEDS_CSUM`).
const NEEDS_CHECKSUM: u8 = 1;
/// Congestion notification is in use (`VIRTIO_NET_HDR_GSO_ECN`); a bit beside the kind.
const ECN: u8 = 0x80;

/// What a packet is a bundle of (`VIRTIO_NET_HDR_GSO_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bundle {
    /// One packet, not a bundle.
    #[default]
    None,
    /// Segments of a TCP connection over IPv4.
    Tcp4,
    /// Segments of a TCP connection over IPv6.
    Tcp6,
    /// UDP datagrams of one size.
    Udp,
}

/// What a packet from or to a TAP device is, and what its receiver has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// Whether the checksum at `checksum_start + checksum_offset` is to be completed over all from `checksum_start` on.
    pub needs_checksum: bool,
    /// What it is a bundle of.
    pub bundle: Bundle,
    /// Bytes of all headers of a bundle, a hint.
    pub headers: u16,
    /// Payload bytes of each packet of a bundle; the last may have fewer.
    pub size: u16,
    /// Where the transport header starts.
    pub checksum_start: u16,
    /// Where in it the checksum is.
    pub checksum_offset: u16,
}

impl VnetHeader {
    /// Reads a header as the kernel wrote it, in native byte order. `None` for a bundle of a kind nobody asked for.
    pub fn read(bytes: &[u8; VNET_HEADER]) -> Option<Self> {
        let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let bundle = match bytes[1] & !ECN {
            0 => Bundle::None,
            1 => Bundle::Tcp4,
            4 => Bundle::Tcp6,
            5 => Bundle::Udp,
            _ => return None,
        };
        Some(Self {
            needs_checksum: bytes[0] & NEEDS_CHECKSUM != 0,
            bundle,
            headers: word(2),
            size: word(4),
            checksum_start: word(6),
            checksum_offset: word(8),
        })
    }

    /// The header as the kernel reads it.
    pub fn bytes(&self) -> [u8; VNET_HEADER] {
        let kind = match self.bundle {
            Bundle::None => 0,
            Bundle::Tcp4 => 1,
            Bundle::Tcp6 => 4,
            Bundle::Udp => 5,
        };
        let mut bytes = [0; VNET_HEADER];
        (bytes[0], bytes[1]) = (u8::from(self.needs_checksum) * NEEDS_CHECKSUM, kind);
        let words = [self.headers, self.size, self.checksum_start, self.checksum_offset];
        for (at, word) in words.into_iter().enumerate() {
            bytes[2 + 2 * at..][..2].copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}
