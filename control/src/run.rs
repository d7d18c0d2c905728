//! `margay run`: the options of the process and the process itself.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fastpath::worker;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::api::Plane;
use crate::cli::read_files;
use crate::felix::{self, Driver, Felix};
use crate::intent::Intent;
use crate::links;
use crate::plane::{DataPlane, PlaneOptions};
use crate::program::services::Place;
use crate::resource::{self, Document};
use crate::server::{Limits, Server};
use crate::show::ports::PortState;
use crate::show::runtime::Idle;
use crate::store::Request;

/// Threads that answer the socket.
const SOCKET_THREADS: usize = 2;

/// The options of `margay run`.
#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct RunOptions {
    /// Cores to pin workers to, one worker each
    #[arg(long, value_name = "CORE,...", env = "MARGAY_CORES", value_delimiter = ',')]
    pub cores: Vec<usize>,
    /// The Unix socket to answer on
    #[arg(long, value_name = "PATH", env = "MARGAY_SOCKET", default_value = crate::cli::SOCKET)]
    pub socket: PathBuf,
    /// Packet frames of 2,048 bytes to set aside
    #[arg(long, value_name = "COUNT", env = "MARGAY_FRAMES", default_value_t = 65_536,
          value_parser = clap::value_parser!(u32).range(1_024..=16_777_216))]
    pub frames: u32,
    /// Flows to set memory aside for
    #[arg(long, value_name = "COUNT", env = "MARGAY_FLOWS", default_value_t = 1_048_576,
          value_parser = clap::value_parser!(u32).range(1_024..=134_217_728))]
    pub flows: u32,
    /// How a worker passes the time without packets
    #[arg(long, env = "MARGAY_IDLE", value_enum, default_value_t = Idle::Adaptive)]
    pub idle: Idle,
    /// The name that endpoints have for this node. Without it, endpoints of services go by the host's name, and every
    /// WorkloadEndpoint and HostEndpoint is of this node
    #[arg(long, value_name = "NAME", env = "MARGAY_NODE_NAME")]
    pub node_name: Option<String>,
    /// The zone that this node is in, for topology hints of services
    #[arg(long, value_name = "NAME", env = "MARGAY_ZONE")]
    pub zone: Option<String>,
    /// A file to write flow logs to, too; put aside at 64 MiB, the last four of them are kept
    #[arg(long, value_name = "FILE", env = "MARGAY_FLOW_LOG")]
    pub flow_log: Option<PathBuf>,
    /// Let Calico's Felix say what policy there is; it is heard on this Unix socket
    #[arg(long, value_name = "PATH", env = "MARGAY_FELIX", num_args = 0..=1, default_missing_value = felix::SOCKET)]
    pub felix: Option<PathBuf>,
    /// The folder that keeps the keys of this node, by which Felix has traffic between nodes encrypted
    #[arg(
        long,
        value_name = "DIR",
        env = "MARGAY_FELIX_KEYS",
        default_value = "/var/lib/margay"
    )]
    pub felix_keys: PathBuf,
    /// A TCP address to serve /metrics on
    #[arg(long, value_name = "ADDRESS:PORT", env = "MARGAY_METRICS")]
    pub metrics: Option<SocketAddr>,
    /// Resources to apply at start; a folder stands for the .yaml, .yml and .json files in it
    #[arg(
        short = 'f',
        long = "file",
        value_name = "FILE|DIR",
        env = "MARGAY_FILE",
        value_delimiter = ','
    )]
    pub files: Vec<PathBuf>,
}

/// Why the process did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It could not start as asked; exit code 2.
    #[error("{0}")]
    Start(String),
    /// It failed after it had started; exit code 1.
    #[error("{0}")]
    Failed(String),
}

/// Runs the data plane until it is told to stop.
///
/// # Errors
/// Why it did not start, or ended, in a sentence.
pub fn run(options: RunOptions) -> Result<(), RunError> {
    log();
    check_processor().map_err(RunError::Start)?;
    let cores = cores(&options.cores).map_err(RunError::Start)?;
    let sources = read_files(&options.files).map_err(|error| RunError::Start(error.to_string()))?;
    let documents = resource::read(&sources).map_err(|refusal| RunError::Start(refusal.to_string()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(SOCKET_THREADS)
        .enable_all()
        .build()
        .map_err(|error| RunError::Start(format!("cannot start threads: {error}")))?;
    let result = runtime.block_on(serve(options, cores, documents));
    // Whoever still talks to the socket is cut off; devices have been restored by now.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

/// Where the plane runs.
fn place(options: &RunOptions) -> Place {
    Place {
        node: options.node_name.clone().unwrap_or_else(host_name),
        named: options.node_name.is_some(),
        zone: options.zone.clone(),
    }
}

async fn serve(options: RunOptions, cores: Vec<Option<usize>>, documents: Vec<Document>) -> Result<(), RunError> {
    let start = |message: String| RunError::Start(message);
    let mut stop = Stop::listen().map_err(|error| start(format!("cannot listen to signals: {error}")))?;
    let server = Server::bind(&options.socket, options.metrics, Limits::default());
    let server = server.map_err(|error| start(error.to_string()))?;
    let felix = options.felix.as_deref().map(Felix::bind).transpose();
    let felix = felix.map_err(|error| start(error.to_string()))?;
    let plane_options = PlaneOptions {
        frames: options.frames,
        flows: options.flows,
        cores,
        idle: match options.idle {
            Idle::Spin => worker::Idle::Spin,
            Idle::Adaptive => worker::Idle::Adaptive,
        },
        place: place(&options),
    };
    let plane = DataPlane::start(&plane_options).map_err(|error| start(error.to_string()))?;
    if let Some(path) = &options.flow_log {
        plane.write_flow_logs(path).map_err(|error| {
            let path = path.display();
            start(format!(
                "cannot write flow logs to {path}: {error}; name another file with --flow-log"
            ))
        })?;
    }
    plane.keep_records(&crate::cli::records_folder(&options.socket));
    let plane = Arc::new(plane);
    say_capacities(&*plane);
    let intent = match &options.node_name {
        Some(name) => Intent::on_node(plane.clone(), name),
        None => Intent::new(plane.clone()),
    };
    let intent = Arc::new(match felix {
        Some(_) => intent.driven_by_felix(),
        None => intent,
    });
    // Before the first port is there, so that it is closed.
    let felix = felix.map(|felix| {
        let node = plane_options.place.node.clone();
        let driver = Driver::new(plane.clone(), intent.clone(), node, options.felix_keys.clone());
        (felix, driver)
    });
    if !documents.is_empty() {
        let applied = intent.carry_out(Request::Apply(documents));
        applied.map_err(|refusal| start(refusal.to_string()))?;
    }
    let links = links::watch().map_err(|error| start(format!("cannot watch network devices: {error}")))?;
    let watching = tokio::spawn(follow(links, plane.clone()));
    let learning = tokio::spawn(plane.kernel_routes().follow());
    let listening = felix.map(|(felix, driver)| tokio::spawn(felix.serve(driver)));
    let announcing = tokio::spawn(announce_when_ready(plane.clone()));
    let (finish, finished) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve(intent, async {
        let _ = finished.await;
    }));
    stop.wait().await;
    watching.abort();
    learning.abort();
    announcing.abort();
    listening.inspect(|listening| listening.abort());
    let _ = finish.send(());
    // Workers end, sockets close, devices are left as they were found.
    let stopping = tokio::task::spawn_blocking(move || plane.shut_down());
    let (served, stopped) = tokio::join!(serving, stopping);
    served
        .and(stopped)
        .map_err(|error| RunError::Failed(format!("a part of the program failed: {error}")))
}

/// The name of the host, in lower case as Kubernetes names nodes; empty if it cannot be read.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_lowercase()
}

/// Tells the plane of the devices' changes.
async fn follow(mut links: tokio::sync::mpsc::Receiver<links::Link>, plane: Arc<DataPlane>) {
    while let Some(link) = links.recv().await {
        let plane = plane.clone();
        // Opening a device can take a quarter of a second.
        let _ = tokio::task::spawn_blocking(move || plane.link_changed(&link)).await;
    }
}

/// Logs to standard error, as `RUST_LOG` says.
fn log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let logger = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // Unwritable standard error is nobody's loss; the complaint about it would go there too, and panic.
    let logger = logger.log_internal_errors(false);
    // In tests another logger may be there already.
    let _ = logger.with_ansi(colours).with_target(false).try_init();
}

/// The workers' cores: those asked for, else the last one of those we may run on.
fn cores(asked: &[usize]) -> Result<Vec<Option<usize>>, String> {
    let allowed: Vec<usize> = core_affinity::get_core_ids()
        .unwrap_or_default()
        .iter()
        .map(|core| core.id)
        .collect();
    if let Some(missing) = asked.iter().find(|core| !allowed.contains(core)) {
        let list: Vec<String> = allowed.iter().map(ToString::to_string).collect();
        return Err(format!(
            "there is no core {missing} to run on; expected --cores from {}",
            list.join(",")
        ));
    }
    if let Some(twice) = asked.iter().enumerate().find(|(at, core)| asked[..*at].contains(core)) {
        return Err(format!("core {} stands twice in --cores; one worker a core", twice.1));
    }
    if asked.is_empty() {
        return Ok(vec![allowed.last().copied()]);
    }
    Ok(asked.iter().copied().map(Some).collect())
}

/// The program is compiled for x86-64-v3; an older processor would stop at the first such instruction.
fn check_processor() -> Result<(), String> {
    let Ok(description) = std::fs::read_to_string("/proc/cpuinfo") else {
        return Ok(());
    };
    let Some(flags) = description.lines().find(|line| line.starts_with("flags")) else {
        return Ok(());
    };
    let needed = ["avx2", "bmi1", "bmi2", "fma", "movbe", "popcnt"];
    match needed
        .iter()
        .find(|flag| !flags.split_whitespace().any(|has| has == **flag))
    {
        Some(missing) => Err(format!(
            "this processor lacks {missing}; margay needs x86-64-v3 (2013 and later)"
        )),
        None => Ok(()),
    }
}

fn say_capacities(plane: &dyn Plane) {
    for memory in plane.memory() {
        tracing::info!("{}: room for {}, {} bytes", memory.what, memory.capacity, memory.bytes);
    }
}

/// Says `ready` when every port is up.
async fn announce_when_ready(plane: Arc<DataPlane>) {
    // The first report on the devices is on its way.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut patience = 0u32;
    loop {
        let asked = plane.clone();
        let ports = tokio::task::spawn_blocking(move || asked.ports())
            .await
            .unwrap_or_default();
        let down = ports.iter().find(|port| port.state == PortState::Down);
        match down {
            None => break,
            Some(port) if patience.is_multiple_of(100) => {
                let why = port.why.as_deref().unwrap_or("its device is not ready");
                tracing::info!("waiting for port {}: {why}", port.name);
            }
            Some(_) => {}
        }
        patience += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    plane.set_ready();
    // Whoever started us and closed our standard error does not want to know.
    let _ = writeln!(std::io::stderr(), "ready");
}

/// SIGINT and SIGTERM.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
