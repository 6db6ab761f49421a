//! Everything that takes rights, opened while there are some.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use nix::sys::epoll::Epoll;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signalfd::SignalFd;
use nix::time::{ClockId, clock_gettime};

use super::error::{StartError, system};
use crate::config::{BothPorts, Config, Interfaces, Loaded, LogOutput, Mode};
use crate::control::server::ControlServer;
use crate::detect::peers::{Hearing, Peers};
use crate::detect::policy::Watch;
use crate::detect::table::ScoreTable;
use crate::event::emitter::Form;
use crate::event::history::History;
use crate::event::{Emitter, Network};
use crate::packet::Reject;
use crate::sensor::clock::Clock;
use crate::sensor::decoy::Decoys;
use crate::sensor::flood::Gauge;
use crate::sensor::gate::Gate;
use crate::sensor::host::{Host, Known, Rings};
use crate::sensor::listener::Skipped;
use crate::sensor::names::Names;
use crate::sensor::notify::Notifier;
use crate::sensor::ports_in_use::PortsInUse;
use crate::sensor::ring::{self, Ring};
use crate::sensor::seccomp::Addressing;
use crate::sensor::sightings::Sightings;
use crate::sensor::trails::Trails;
use crate::sensor::watcher::{Shared, View};
use crate::sensor::{attention, bridge_ports, departed, event_loop, network, never_block, signals, terms};
use crate::sys;

/// Most ring threads that are started unasked, one for each two processors: a flood leaves the others to the host's own
/// work, and one ring judges it for less than two do.
const MOST_WORKERS: usize = 4;

/// What the daemon will work with.
pub struct Opened {
    pub signals: SignalFd,
    pub emitter: Emitter,
    pub host: Host,
    pub network: Network,
    pub decoys: Decoys,
    /// What was not to be had: ports that somebody else listens at, resolvers, files to read again.
    pub lacking: Vec<String>,
    pub watch: Arc<Watch>,
    pub control: ControlServer,
    pub names: Option<Names>,
    pub epoll: Epoll,
    pub notifier: Notifier,
    pub shared: Arc<Shared>,
    /// What the ring threads take: none with `--connect`.
    pub readers: Vec<Ring>,
    /// What the main thread keeps of the rings.
    pub rings: Option<Rings>,
    /// NEVER_BLOCK, the ignore file, and what the configuration implies.
    pub configured_never: Vec<ipnet::IpNet>,
}

impl Opened {
    /// Opens all of it; files that come into being belong to `own_uid`.
    ///
    /// # Errors
    /// The first that cannot be had. Nothing is left behind.
    pub fn open(loaded: &Loaded, own_uid: u32, clock: Clock) -> Result<Opened, StartError> {
        let config = &loaded.config;
        let signals = signals::open().map_err(system("signals cannot be read"))?;
        let mut emitter = outputs(config, own_uid)?;
        greet(loaded, &mut emitter);
        let (resolvers, mut lacking) = never_block::resolvers();
        // Whoever has done what this asks for is not to hear it at every start.
        let hidden =
            never_block::only_a_stub(config, &resolvers).filter(|_| !never_block::lists_others(loaded));
        lacking.extend(hidden.map(str::to_owned));
        let configured_never = never_block::configured(loaded, &resolvers);
        let (decoys, skipped) = Decoys::bind(&config.bound_ports(), config.port_banner.as_deref())?;
        let mut host = open_host(config, &configured_never, decoys.ports())?;
        lacking.extend(bridge_ports::told(&config.interfaces, host.surroundings()));
        let network = network::whose();
        lacking.extend(skipped.iter().map(Skipped::to_string));
        listening_lines(config, &decoys.ports()).for_each(|line| emitter.note(&line));
        let watch = Arc::new(host.watch(&terms::watch(config, &decoys.ports())));
        let in_use = PortsInUse::new(config.interfaces == Interfaces::All);
        if has_just_booted() {
            host.await_services(&watch, &in_use);
        }
        host.look_at_sockets(&watch, &in_use, clock.now().uptime)
            .map_err(|error| StartError::System("sockets cannot be listed", error))?;
        let (readers, rings) = open_rings(config, &watch, &in_use)?;
        let control = ControlServer::bind(&config.control_socket, own_uid)?;
        let names = open_names(config, &resolvers)?;
        let epoll = event_loop::epoll().map_err(system("no epoll"))?;
        let view = view(config, watch.clone(), &host, &decoys, emitter.form());
        let shared = Arc::new(shared(config, view, in_use, clock, host.surroundings().is_router())?);
        if rings.is_some() {
            // They are open: what begins from now on is seen.
            let noted = host.note_connections(&shared.peers, &shared.in_use, shared.clock.now().micros());
            lacking.extend(noted.err().map(|error| {
                format!("connections cannot be listed: {error}; peers of those that stand may be taken for scanners")
            }));
        }
        let notifier = Notifier::open();
        Ok(Opened {
            signals,
            emitter,
            host,
            network,
            decoys,
            lacking,
            watch,
            control,
            names,
            epoll,
            notifier,
            shared,
            readers,
            rings,
            configured_never,
        })
    }

    /// Which of these sockets send to an address that each datagram brings along.
    pub fn addressing(&self) -> Addressing {
        Addressing { log: self.emitter.log_socket(), decoys: self.decoys.answering() }
    }
}

/// Where nobody tells, it has been up for long.
fn has_just_booted() -> bool {
    let up = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
    up.is_ok_and(|up| up < Duration::from_millis(departed::BOOT))
}

/// Our name, and with `-v` what is ignored: a log is opened with that.
fn greet(loaded: &Loaded, emitter: &mut Emitter) {
    match loaded.config.flags.log_output {
        LogOutput::Stdout | LogOutput::StdoutAndSyslog => emitter.note(&version()),
        LogOutput::Syslog | LogOutput::Journald => {
            // Not println, which would end the daemon where nobody reads.
            let _ = writeln!(io::stdout(), "{}", version());
        }
    }
    verbose_lines(loaded).for_each(|line| emitter.note(&line));
}

fn outputs(config: &Config, owner: u32) -> Result<Emitter, StartError> {
    let history = config.history_file.as_deref().map(|path| History::open(path, Some(owner))).transpose()?;
    Ok(Emitter::open(config.flags, config.log_format, history)?)
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
fn listening_lines(config: &Config, ports: &BothPorts) -> impl Iterator<Item = String> {
    let told = ports.iter().filter(|_| config.flags.mode == Mode::Connect);
    told.map(|(protocol, port)| format!("Listen on AF_INET6: {protocol} port: {port}"))
}

/// The first resolver that there is a way to.
fn open_names(config: &Config, resolvers: &[IpAddr]) -> Result<Option<Names>, StartError> {
    if !config.resolve_host {
        return Ok(None);
    }
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut opened = resolvers.iter().copied().chain([local]).map(Names::open);
    let names = opened.find(Result::is_ok).unwrap_or_else(|| Names::open(local));
    names.map(Some).map_err(|error| StartError::System("RESOLVE_HOST: no socket to a resolver", error))
}

fn open_host(config: &Config, never: &[ipnet::IpNet], decoys: BothPorts) -> Result<Host, StartError> {
    let known = Known {
        configured_never: never.to_vec(),
        interfaces: config.interfaces.clone(),
        decoys,
        ignore_services: config.flags.disable_service_check,
    };
    Host::open(known).map_err(|error| StartError::System("the host's addresses cannot be read", error))
}

/// The rings, closed until their threads run, and what turns them: `--connect` has none.
fn open_rings(
    config: &Config,
    watch: &Watch,
    in_use: &PortsInUse,
) -> Result<(Vec<Ring>, Option<Rings>), StartError> {
    if config.flags.mode == Mode::Connect {
        return Ok((Vec::new(), None));
    }
    let half = std::thread::available_parallelism().map_or(1, usize::from) / 2;
    let interest = attention::wanted(ring::resolve(&config.interfaces)?, watch, in_use);
    let workers = config.workers.unwrap_or(half.clamp(1, MOST_WORKERS));
    let (readers, control) = ring::open(workers, &interest)?;
    Ok((readers, Some(Rings::new(control, interest))))
}

fn view(config: &Config, watch: Arc<Watch>, host: &Host, decoys: &Decoys, form: Form) -> View {
    View {
        watch,
        own: host.own(),
        interfaces: host.watched(),
        decoys: decoys.ports(),
        skip_local: !config.flags.disable_local_check,
        tell_all: terms::tells_all(config, form),
        tell_served: form == Form::Classic,
        debug: config.flags.debug,
    }
}

fn shared(
    config: &Config,
    view: View,
    in_use: PortsInUse,
    clock: Clock,
    is_router: bool,
) -> Result<Shared, StartError> {
    let random = || sys::random().map_err(|error| StartError::System("no randomness", error));
    let (key, peers_key) = (random()?, random()?);
    Ok(Shared {
        view: arc_swap::ArcSwap::from_pointee(view),
        table: Arc::new(ScoreTable::new(config.table_size, &key, terms::half_life(config))),
        peers: Peers::new(&peers_key, Hearing::of_this_host(is_router, clock.now().micros())),
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
