//! The sensor's start, in the order in which it happens. Everything that needs rights is opened first, then every
//! right is given up, then the first packet is looked at.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::attention;
use super::clock::Clock;
use super::confine::{self, Confined};
use super::decoy::Decoys;
use super::event_loop::{self, End, EventLoop};
use super::filter::Interest;
use super::flood::{Floods, Gauge};
use super::followed::Followed;
use super::gate::Gate;
use super::half_open::HalfOpen;
use super::helper_link::{HelperLink, LinkError, QUEUE};
use super::host::{Connections, Host, Known};
use super::listener::DecoyError;
use super::names::Names;
use super::notify::Notifier;
use super::operators::Operators;
use super::parked::Parked;
use super::ports_in_use::PortsInUse;
use super::report::Reporter;
use super::responder::{self, Responder};
use super::ring::{self, Ring, RingControl, RingError};
use super::sightings::Sightings;
use super::state_dir::StateDirError;
use super::trails::Trails;
use super::traps::{self, Traps};
use super::watcher::{Shared, View};
use super::{network, never_block, signals, state_dir};
use crate::config::{BlockMode, Config, FOREVER, Interfaces, Loaded, LogOutput, Mode, PortSet};
use crate::control::server::{BindError, ControlServer};
use crate::detect::Peers;
use crate::detect::policy::Watch;
use crate::detect::probe::Protocol;
use crate::detect::table::{ScoreTable, Vantage};
use crate::detect::walk::Walk;
use crate::event::emitter::Form;
use crate::event::history::{History, HistoryError};
use crate::event::{self, Emitter, Start};
use crate::packet::Reject;
use crate::protocol::Settings;
use crate::protocol::settings::{Custom, Rights};
use crate::sandbox::identity::Identity;
use crate::sandbox::{Capability, SandboxError, capabilities};

/// Exit code when the other process died (sysexits.h, EX_SOFTWARE).
const PEER_DIED: u8 = 70;

/// Most ring threads that are started unasked.
const MOST_WORKERS: usize = 4;

/// Scores that never fade need no sweep; a day is soon enough to find that out again.
const NEVER_SWEPT: Duration = Duration::from_secs(86_400);

/// A step of the start that failed. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A right is missing, or could not be given up.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// No outputs.
    #[error(transparent)]
    Output(#[from] event::emitter::EmitterError),
    /// No history file.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// A decoy could not be bound.
    #[error(transparent)]
    Decoy(#[from] DecoyError),
    /// No packet rings.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// No control socket.
    #[error(transparent)]
    Control(#[from] BindError),
    /// No ring threads.
    #[error(transparent)]
    Thread(#[from] super::parked::ThreadError),
    /// No helper.
    #[error(transparent)]
    Helper(#[from] LinkError),
    /// The ledger has no folder.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// The kernel refused something small.
    #[error("{0}: {1}")]
    System(&'static str, io::Error),
}

/// Runs the daemon until it is told to end or its helper dies.
pub fn run(loaded: &Loaded) -> ExitCode {
    let mut daemon = match start(loaded) {
        Ok(daemon) => daemon,
        Err(error) => {
            eprintln!("portsentry-rs: {error}");
            return ExitCode::FAILURE;
        }
    };
    match daemon.events.run() {
        End::Asked => {
            let well = daemon.events.stop();
            if well { ExitCode::SUCCESS } else { ExitCode::from(PEER_DIED) }
        }
        End::Helper(error) => {
            eprintln!("portsentry-rs: {error}");
            ExitCode::from(PEER_DIED)
        }
        End::Epoll(errno) => {
            eprintln!("portsentry-rs: epoll failed: {errno}");
            ExitCode::FAILURE
        }
    }
}

/// A daemon that watches. Ring threads end with the process.
struct Daemon {
    events: EventLoop,
}

fn start(loaded: &Loaded) -> Result<Daemon, StartError> {
    let config = &loaded.config;
    let null = config.flags.daemonize.then(go_to_background).transpose()?;
    let clock = Clock::start();
    capabilities::require(&needs(config))?;
    let identity = Identity::resolve(config.run_as.as_deref())?;
    let cage = confine::cage(config)?;
    let signals = signals::open().map_err(system("signals cannot be read"))?;

    // Everything that needs rights.
    let own_uid = confine::own_uid(identity);
    let mut emitter = outputs(config, own_uid)?;
    match config.flags.log_output {
        LogOutput::Stdout | LogOutput::StdoutAndSyslog => emitter.note(&version()),
        LogOutput::Syslog | LogOutput::Journald => println!("{}", version()),
    }
    verbose_lines(loaded).for_each(|line| emitter.note(&line));
    let configured_never = never_block::configured(loaded);
    let mut host = open_host(config, &configured_never)?;
    let network = network::whose();
    let (decoys, skipped) = bind_decoys(config)?;
    listening_lines(config, &decoys).for_each(|line| emitter.note(&line));
    host.set_decoys(decoys.ports(Protocol::Tcp), decoys.ports(Protocol::Udp));
    let watch = Arc::new(host.watch(&watch(config, decoys.ports_of_both())));
    let in_use = PortsInUse::new(config.interfaces == Interfaces::All);
    host.look_at_sockets(&in_use, clock.now().uptime)
        .map_err(|error| StartError::System("sockets cannot be listed", error))?;
    let rings = open_rings(config, &watch, &in_use)?;
    let control = ControlServer::bind(&config.control_socket, own_uid)?;
    let names = open_names(config)?;
    let epoll = event_loop::epoll().map_err(system("no epoll"))?;
    let notifier = Notifier::open();

    // The helper, while there still are rights to give it.
    let settings = settings(config, configured_never, identity);
    state_dir::make(&config.state_dir, helper_user(&settings, identity))?;
    let mut link = HelperLink::start(&settings)?;
    let ready = link.wait_ready()?;

    let tell_all = tells_all(config, emitter.form());
    let view = View {
        watch: watch.clone(),
        own: host.own(),
        decoys: decoys.ports(Protocol::Tcp),
        decoys_udp: decoys.ports(Protocol::Udp),
        skip_local: !config.flags.disable_local_check,
        tell_all,
        tell_served: emitter.form() == Form::Classic,
        debug: config.flags.debug,
    };
    let shared = Arc::new(shared(config, view, in_use, clock)?);
    let confined = Confined::enter(loaded, identity, link.pid())?;
    let (readers, rings) = rings.map_or_else(Default::default, Rings::apart);
    let threads = Parked::start(readers, &shared)?;
    let confinement = confined.seal(cage, &settings, ready)?;

    let responder = Responder::new(responder::Setup {
        watch,
        never: host.never_block(),
        table: shared.table.clone(),
        order: config.block_with.clone(),
        custom: custom(config),
        tell_all,
        verbose_ignore: config
            .ignore_file
            .clone()
            .filter(|_| config.flags.verbose)
            .map(|path| (path, loaded.ignored.iter().copied().collect())),
        queue: QUEUE,
        gate: shared.gate.clone(),
    });
    let description = describe(config, network, &decoys, &link, ready.restored, confinement);
    let reporter = Reporter::new(emitter, names, description, clock.now());
    let mut events = EventLoop {
        epoll,
        shared: shared.clone(),
        decoys,
        half_open: HalfOpen::new(),
        link,
        responder,
        operators: Operators::default(),
        control,
        signals,
        host,
        reporter,
        notifier,
        batch: Vec::with_capacity(event_loop::BATCH),
        protect_established: config.protect_established,
        traps: Traps::new(ready.tripwire),
        followed: Followed::default(),
        connections: Connections::default(),
        floods: Floods::default(),
        sweep_every: half_life(config).unwrap_or(NEVER_SWEPT),
        sweep_at: Instant::now() + half_life(config).unwrap_or(NEVER_SWEPT),
        loaded: loaded.clone(),
        notes: HashMap::new(),
    };
    events.register().map_err(system("a descriptor cannot be watched"))?;
    events.register_decoys()?;
    if let Some((control, interest)) = rings {
        events.host.set_rings(control, interest);
    }
    threads.begin();
    let now = clock.now();
    for skipped in skipped {
        events.reporter.error(now, &skipped.to_string());
    }
    events.reporter.start(now);
    if network == event::Network::Own {
        // Not eprintln, which would end the daemon where nobody reads.
        let _ = writeln!(io::stderr(), "portsentry-rs: {}", network::OWN);
    }
    if settings.tripwire.is_some() && !ready.tripwire {
        events.reporter.error(now, traps::LACKING);
    }
    if let Some(null) = null {
        leave_terminal(&null).map_err(system("-D: the terminal cannot be left"))?;
    }
    events.notifier.ready(&events.in_short(now));
    #[cfg(feature = "escape-attempts")]
    crate::sandbox::escape::attempt("sensor");
    Ok(Daemon { events })
}

/// The rights that this configuration takes. Ports below 1024 need one of their own.
fn needs(config: &Config) -> Vec<Capability> {
    let mut needs = vec![Capability::CAP_NET_ADMIN];
    if config.flags.mode == Mode::Stealth {
        needs.push(Capability::CAP_NET_RAW);
    }
    let (tcp, udp) = config.bound_ports();
    if tcp.iter().chain(udp.iter()).any(|port| port < 1024) {
        needs.push(Capability::CAP_NET_BIND_SERVICE);
    }
    needs
}

fn told_mode(config: &Config) -> event::Mode {
    match config.flags.mode {
        Mode::Stealth => event::Mode::Stealth,
        Mode::Connect => event::Mode::Connect,
    }
}

fn outputs(config: &Config, owner: u32) -> Result<Emitter, StartError> {
    let history = config.history_file.as_deref().map(|path| History::open(path, Some(owner))).transpose()?;
    let output = match config.flags.log_output {
        LogOutput::Stdout => event::emitter::Output::Stdout,
        LogOutput::Syslog => event::emitter::Output::Syslog,
        LogOutput::StdoutAndSyslog => event::emitter::Output::StdoutAndSyslog,
        LogOutput::Journald => event::emitter::Output::Journald,
    };
    Ok(Emitter::open(output, config.log_format, told_mode(config), history)?)
}

/// `-D`: chdir to /, no terminal. Before there is a thread or a child, which would stay behind. What goes wrong at the
/// start is still told to whoever started us: the standard streams are left last.
fn go_to_background() -> Result<File, StartError> {
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = null.map_err(|error| StartError::System("-D: /dev/null cannot be opened", error))?;
    nix::unistd::daemon(false, true).map_err(system("-D: no way into the background"))?;
    Ok(null)
}

fn leave_terminal(null: &File) -> nix::Result<()> {
    nix::unistd::dup2_stdin(null)?;
    nix::unistd::dup2_stdout(null)?;
    nix::unistd::dup2_stderr(null)
}

fn version() -> String {
    format!("portsentry-rs {}", crate::VERSION)
}

/// `-v`: what stands in the ignore file, in PortSentry's words.
fn verbose_lines(loaded: &Loaded) -> impl Iterator<Item = String> + '_ {
    let told = loaded.ignored.iter().filter(|_| loaded.config.flags.verbose);
    told.map(|network| format!("Ignoring IP: {}/{}", network.addr(), network.netmask()))
}

/// In connect mode PortSentry names each port that it listens on; our sockets too are of IPv6 and take IPv4.
fn listening_lines(config: &Config, decoys: &Decoys) -> impl Iterator<Item = String> {
    let told = config.flags.mode == Mode::Connect;
    let (tcp, udp) = if told { decoys.ports_of_both() } else { Default::default() };
    let line = |protocol, port| format!("Listen on AF_INET6: {protocol} port: {port}");
    let tcp: Vec<String> = tcp.iter().map(|port| line("TCP", port)).collect();
    tcp.into_iter().chain(udp.iter().map(|port| line("UDP", port)).collect::<Vec<_>>())
}

/// The first resolver that there is a way to.
fn open_names(config: &Config) -> Result<Option<Names>, StartError> {
    if !config.resolve_host {
        return Ok(None);
    }
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let resolvers = never_block::resolvers().into_iter().chain([local]);
    let mut opened = resolvers.map(Names::open);
    let names = opened.find(Result::is_ok).unwrap_or_else(|| Names::open(local));
    names.map(Some).map_err(|error| StartError::System("RESOLVE_HOST: no socket to a resolver", error))
}

fn open_host(config: &Config, configured_never: &[ipnet::IpNet]) -> Result<Host, StartError> {
    let known = Known {
        configured_never: configured_never.to_vec(),
        interfaces: config.interfaces.clone(),
        ignore_services: config.flags.disable_service_check,
    };
    Host::open(known).map_err(|error| StartError::System("the host's addresses cannot be read", error))
}

fn bind_decoys(config: &Config) -> Result<(Decoys, Vec<super::listener::Skipped>), StartError> {
    let (tcp, udp) = config.bound_ports();
    Ok(Decoys::bind(&tcp, &udp, config.port_banner.as_deref())?)
}

/// The rings, closed until their threads run: `--connect` has none.
struct Rings {
    readers: Vec<Ring>,
    control: RingControl,
    interest: Interest,
}

fn open_rings(config: &Config, watch: &Watch, in_use: &PortsInUse) -> Result<Option<Rings>, StartError> {
    if config.flags.mode == Mode::Connect {
        return Ok(None);
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let everywhere = Interest { interfaces: ring::resolve(&config.interfaces)?, ..Interest::default() };
    let interest = attention::turned(&everywhere, watch, in_use);
    let (readers, control) = ring::open(config.workers.unwrap_or(cores.min(MOST_WORKERS)), &interest)?;
    Ok(Some(Rings { readers, control, interest }))
}

/// Whom the helper ends as: responses by files and programs keep it root.
fn helper_user(settings: &Settings, identity: Identity) -> Identity {
    match settings.rights() {
        Rights::NetAdmin => identity,
        Rights::Root | Rights::Commands => Identity { uid: 0, gid: 0 },
    }
}

fn settings(config: &Config, never_block: Vec<ipnet::IpNet>, identity: Identity) -> Settings {
    Settings {
        never_block,
        block_with: config.block_with.clone(),
        block_time: config.block_time,
        block_time_max: config.block_time_max,
        block_time_factor: config.block_time_factor,
        state_dir: config.state_dir.clone(),
        flush_on_stop: config.flush_on_stop,
        run_as: Some((identity.uid, identity.gid)),
        sandbox: config.sandbox,
        sandbox_log: config.sandbox_log,
        blocked_file: config.blocked_file.clone(),
        tripwire: traps::terms(config),
        custom: custom(config),
    }
}

/// The administrator's own texts: the helper acts on them, and the log quotes them.
fn custom(config: &Config) -> Custom {
    let mode = match config.flags.mode {
        Mode::Stealth => "stealth",
        Mode::Connect => "connect",
    };
    Custom {
        kill_route: config.kill_route.clone(),
        kill_run_cmd: config.kill_run_cmd.clone(),
        unblock_cmd: config.unblock_cmd.clone(),
        hosts_deny: config.kill_hosts_deny.clone(),
        hosts_deny_file: config.hosts_deny_file.clone(),
        command_timeout: config.command_timeout,
        mode: mode.to_owned(),
        run_only_tcp: config.block_tcp == BlockMode::RunCommand,
        run_only_udp: config.block_udp == BlockMode::RunCommand,
    }
}

/// Decoys are watched ports too: who knocks there is a stranger as well.
pub(crate) fn watch(config: &Config, (tcp, udp): (PortSet, PortSet)) -> Watch {
    Watch {
        tcp_ports: config.tcp_ports.union(&tcp),
        udp_ports: config.udp_ports.union(&udp),
        scan_trigger: config.scan_trigger,
        ipv6_prefix: config.ipv6_prefix,
        one_by_one: crate::networks::Networks::default(),
        vantage: Vantage::Host,
        walk: Walk::new(config.sensitivity),
        block_tcp: config.block_tcp,
        block_udp: config.block_udp,
    }
}

/// `None`, for ever, where SCORE_WINDOW is.
pub(crate) fn half_life(config: &Config) -> Option<Duration> {
    (config.score_window != FOREVER).then(|| Duration::from_secs(config.score_window.into()))
}

fn shared(config: &Config, view: View, in_use: PortsInUse, clock: Clock) -> Result<Shared, StartError> {
    let (mut key, mut peers_key) = ([0; 16], [0; 16]);
    getrandom::fill(&mut key)
        .and_then(|()| getrandom::fill(&mut peers_key))
        .map_err(|error| StartError::System("no randomness", std::io::Error::other(error)))?;
    Ok(Shared {
        view: arc_swap::ArcSwap::from_pointee(view),
        table: Arc::new(ScoreTable::new(config.table_size, &key, half_life(config))),
        peers: Peers::new(&peers_key, true),
        trails: Trails::new(&peers_key),
        gate: Arc::new(Gate::new(config.block_limit)),
        gauge: Gauge::default(),
        in_use,
        sightings: Sightings::new().map_err(system("no eventfd"))?,
        rejects: [const { AtomicU64::new(0) }; Reject::ALL.len()],
        stop: EventFd::from_flags(EfdFlags::EFD_CLOEXEC).map_err(system("no eventfd"))?,
        clock,
    })
}

/// Classic text and the history file promise a line for every probe of a watched port.
pub(crate) fn tells_all(config: &Config, form: Form) -> bool {
    config.history_file.is_some() || form == Form::Classic
}

impl Rings {
    /// What the threads take, and what the main thread keeps.
    fn apart(self) -> (Vec<Ring>, Option<(RingControl, Interest)>) {
        (self.readers, Some((self.control, self.interest)))
    }
}

fn describe(
    config: &Config,
    network: event::Network,
    decoys: &Decoys,
    link: &HelperLink,
    restored: u32,
    confinement: event::Confinement,
) -> Start {
    Start {
        version: crate::VERSION.to_owned(),
        pid: std::process::id(),
        helper_pid: link.pid(),
        mode: told_mode(config),
        network,
        interfaces: match &config.interfaces {
            Interfaces::All => vec!["ALL".to_owned()],
            Interfaces::AllButLoopback => vec!["ALL_NLO".to_owned()],
            Interfaces::Named(names) => names.clone(),
        },
        tcp_ports: config.tcp_ports.to_string(),
        udp_ports: config.udp_ports.to_string(),
        decoy_tcp_ports: decoys.ports(Protocol::Tcp).to_string(),
        decoy_udp_ports: decoys.ports(Protocol::Udp).to_string(),
        restored,
        confinement,
    }
}

fn system(what: &'static str) -> impl Fn(nix::errno::Errno) -> StartError {
    move |errno| StartError::System(what, errno.into())
}
