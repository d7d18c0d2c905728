//! Captured packets as a file of pcapng (draft-ietf-opsawg-pcapng), a piece at a time.

use std::borrow::Cow;
use std::sync::{Arc, Weak};
use std::time::Duration;

use fastpath::builder::StageInfo;
use fastpath::capture::{Captured, Catch, Place, Reason};
use fastpath::meta::PortId;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};
use pcap_file::pcapng::blocks::interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption};
use pcap_file::pcapng::{PcapNgBlock, PcapNgWriter};
use pcap_file::{DataLink, PcapError};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Packets that one piece holds at most.
const PIECE: usize = 256;
/// Timestamps count nanoseconds: a power of ten (section 4.2, if_tsresol).
const NANOSECONDS: u8 = 9;

/// Where packets are captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Where {
    /// As they come in by a port
    #[default]
    Rx,
    /// As they are handed to a port
    Tx,
    /// Where they are dropped; the reason is the packet's comment
    Drops,
}

impl From<Where> for Place {
    fn from(place: Where) -> Self {
        match place {
            Where::Rx => Place::Received,
            Where::Tx => Place::Sent,
            Where::Drops => Place::Dropped,
        }
    }
}

/// What to capture.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CaptureRequest {
    /// Where.
    #[serde(default, rename = "where")]
    pub place: Where,
    /// How many packets, at least one; until the client goes, where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Which: a pcap-filter expression; every packet where it is empty.
    #[serde(default)]
    pub filter: String,
}

/// What it takes to tell a captured packet's story.
pub struct Scene {
    /// The names of the ports, by their ids.
    pub ports: Vec<Option<String>>,
    /// The stages of the graph.
    pub stages: Arc<[StageInfo]>,
    /// The time since 1970 at which the plane started.
    pub epoch: Duration,
}

/// A capture under way. Ends with it.
pub struct Capturing {
    catch: Arc<Catch>,
    scene: Scene,
    writer: Result<PcapNgWriter<Vec<u8>>, PcapError>,
    /// The ports that have a description in the file, in its order.
    described: Vec<PortId>,
    last_ns: u64,
    disarm: Option<Box<dyn FnOnce() + Send>>,
    reader: Arc<()>,
}

impl Capturing {
    /// Writes what `catch` gets; `disarm` is called when nobody wants it any more.
    pub fn new(catch: Arc<Catch>, scene: Scene, disarm: impl FnOnce() + Send + 'static) -> Self {
        Self {
            catch,
            scene,
            writer: PcapNgWriter::new(Vec::new()),
            described: vec![],
            last_ns: 0,
            disarm: Some(Box::new(disarm)),
            reader: Arc::default(),
        }
    }

    /// Alive as long as this is.
    pub(crate) fn reader(&self) -> Weak<()> {
        Arc::downgrade(&self.reader)
    }

    /// The next piece of the file, empty while no packet comes; none after the last.
    pub fn next_piece(&mut self) -> Option<Vec<u8>> {
        self.disarm.as_ref()?;
        let is_over = self.catch.is_over();
        for _ in 0..PIECE {
            let Some(packet) = self.catch.next() else { break };
            self.write(&packet);
        }
        if is_over {
            self.write_missed();
            self.end();
        }
        // Writing to memory does not fail.
        self.writer.as_mut().ok().map(|writer| std::mem::take(writer.get_mut()))
    }

    fn write(&mut self, packet: &Captured) {
        let interface_id = self.describe(packet.port);
        let timestamp = self.scene.epoch + Duration::from_nanos(packet.at_ns);
        self.last_ns = timestamp.as_nanos() as u64;
        let comment = packet.reason.and_then(|reason| self.sentence(reason));
        self.put(EnhancedPacketBlock {
            interface_id,
            timestamp,
            original_len: u32::from(packet.length),
            data: Cow::Borrowed(packet.bytes()),
            options: comment
                .into_iter()
                .map(|comment| EnhancedPacketOption::Comment(comment.into()))
                .collect(),
        });
    }

    /// The number of a port in the file, which is described there before its first packet.
    fn describe(&mut self, port: PortId) -> u32 {
        if let Some(at) = self.described.iter().position(|described| *described == port) {
            return at as u32;
        }
        let name = self.scene.ports.get(port.index()).cloned().flatten();
        let name = name.unwrap_or_else(|| format!("port {}", port.0));
        self.put(InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: 0,
            options: vec![
                InterfaceDescriptionOption::IfName(name.into()),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ],
        });
        self.described.push(port);
        self.described.len() as u32 - 1
    }

    /// `route: no-route: There is no route to the destination.`
    fn sentence(&self, Reason { stage, drop }: Reason) -> Option<String> {
        let stage = self.scene.stages.get(usize::from(stage))?;
        let (name, sentence) = stage.drops.get(usize::from(drop)).or(stage.drops.last())?;
        Some(format!("{}: {name}: {sentence}", stage.name))
    }

    /// How many packets control was too slow for. They are not known by port: the first one is told.
    fn write_missed(&mut self) {
        if !self.described.is_empty() {
            self.put(InterfaceStatisticsBlock {
                interface_id: 0,
                timestamp: self.last_ns,
                options: vec![InterfaceStatisticsOption::IsbIfDrop(self.catch.missed())],
            });
        }
    }

    fn put<'a>(&mut self, block: impl PcapNgBlock<'a>) {
        if let Ok(writer) = &mut self.writer {
            let _ = writer.write_pcapng_block(block);
        }
    }

    fn end(&mut self) {
        if let Some(disarm) = self.disarm.take() {
            disarm();
        }
    }
}

impl Drop for Capturing {
    fn drop(&mut self) {
        self.end();
    }
}
