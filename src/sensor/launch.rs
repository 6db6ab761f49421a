//! The sensor's start, in the order in which it happens. Everything that needs rights is opened first, then every
//! right is given up, then the first packet is looked at.
#![forbid(unsafe_code)]

mod background;
mod error;
mod opened;

use std::collections::{HashMap, VecDeque};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::stat::{Mode, umask};

pub use self::error::StartError;

use self::background::Background;
use self::error::system;
use self::opened::Opened;
use super::clock::Clock;
use super::confine::{self, Confined};
use super::event_loop::{self, End, EventLoop, Goodbye};
use super::flood::Floods;
use super::followed::Followed;
use super::half_open::HalfOpen;
use super::helper_link::{HelperLink, QUEUE, Ready};
use super::operators::Operators;
use super::parked::Parked;
use super::protections::Protections;
use super::pulse::Pulse;
use super::report::Reporter;
use super::responder::{self, Responder};
use super::traps::{self, Traps};
use super::{network, state_dir, terms};
use crate::config::{Config, Interfaces, Loaded};
use crate::event::{self, Confinement, Start, stderr};
use crate::protocol::Settings;
use crate::sandbox::capabilities;
use crate::sandbox::identity::Identity;
use crate::sys;

/// Exit code when the other process died, or did not answer the goodbye (sysexits.h, EX_SOFTWARE).
const PEER_DIED: u8 = 70;

/// Scores that never fade need no sweep; a day is soon enough to find that out again.
const NEVER_SWEPT: Duration = Duration::from_secs(86_400);

/// Runs the daemon until it is told to end or its helper dies.
pub fn run(loaded: &Loaded) -> ExitCode {
    let background = match Background::enter(loaded.config.flags.daemonize) {
        Ok(background) => background,
        Err(error) => return failed(&error),
    };
    // In the background it is another one than it was.
    crate::stderr::never_wait();
    match start(loaded, &background) {
        Ok(events) => {
            drop(background);
            watch(events)
        }
        // Told before `background` is dropped, and with it whoever waits for the start is let go.
        Err(error) => failed(&error),
    }
}

fn failed(error: &StartError) -> ExitCode {
    stderr::tell(error);
    ExitCode::FAILURE
}

fn watch(mut events: EventLoop) -> ExitCode {
    match events.run() {
        End::Asked => {
            let well = events.stop();
            if well { ExitCode::SUCCESS } else { ExitCode::from(PEER_DIED) }
        }
        End::Helper(error) => {
            stderr::tell(error);
            ExitCode::from(PEER_DIED)
        }
        End::Epoll(errno) => {
            stderr::tell(format_args!("epoll failed: {errno}"));
            ExitCode::FAILURE
        }
    }
}

/// A daemon that watches. Ring threads end with the process.
fn start(loaded: &Loaded, background: &Background) -> Result<EventLoop, StartError> {
    let config = &loaded.config;
    let clock = Clock::start();
    capabilities::require(&terms::needs(config))?;
    let identity = Identity::of_daemon(config.run_as.as_deref())?;

    let mut opened = passable(|| Opened::open(loaded, identity.uid, clock))?;
    let cage = confine::cage(config, &opened.addressing())?;
    let helper = Helper::hire(config, &opened.configured_never, identity)?;

    let confined = Confined::enter(loaded, identity, helper.link.pid())?;
    opened.lacking.extend(confined.out_of_reach.iter().map(ToString::to_string));
    sys::share_heap();
    let threads = Parked::start(std::mem::take(&mut opened.readers), &opened.shared)?;
    let confinement = confined.seal(cage, &helper.settings, helper.ready)?;

    let (network, lacking) = (opened.network, std::mem::take(&mut opened.lacking));
    let lacks_tripwire = helper.settings.tripwire.is_some() && !helper.ready.tripwire;
    let mut events = assemble(loaded, opened, helper, confinement)?;
    threads.begin();
    announce(&mut events, network, &lacking, lacks_tripwire);
    background.leave_terminal()?;
    #[cfg(feature = "escape-attempts")]
    crate::sandbox::escape::attempt("sensor");
    Ok(events)
}

/// Folders that are made on the way to files of the daemon's user must let that user pass, whoever started us; what the
/// helper's commands make is none of our business.
fn passable<T>(make: impl FnOnce() -> T) -> T {
    let mask = umask(Mode::S_IWGRP | Mode::S_IWOTH);
    let made = make();
    umask(mask);
    made
}

/// The helper, started while there still are rights to give it.
struct Helper {
    settings: Settings,
    link: HelperLink,
    ready: Ready,
}

impl Helper {
    fn hire(config: &Config, never: &[ipnet::IpNet], identity: Identity) -> Result<Helper, StartError> {
        let settings = terms::settings(config, never.to_vec(), identity);
        passable(|| state_dir::make(&config.state_dir, terms::helper_user(&settings, identity)))?;
        let mut link = HelperLink::start(&settings)?;
        let ready = link.wait_ready()?;
        Ok(Helper { settings, link, ready })
    }
}

/// Puts together what the main thread owns, and registers all that it waits for.
fn assemble(
    loaded: &Loaded,
    opened: Opened,
    helper: Helper,
    confinement: Confinement,
) -> Result<EventLoop, StartError> {
    let config = &loaded.config;
    let start = describe(config, &opened, &helper, confinement);
    let responder = responder(loaded, &opened);
    let sweep_every = terms::half_life(config).unwrap_or(NEVER_SWEPT);
    let mut events = EventLoop {
        epoll: opened.epoll,
        reporter: Reporter::new(opened.emitter, opened.names, start, opened.shared.clock.now()),
        shared: opened.shared,
        decoys: opened.decoys,
        half_open: HalfOpen::new(),
        link: helper.link,
        responder,
        operators: Operators::default(),
        protections: Protections::default(),
        pulse: Pulse::default(),
        control: opened.control,
        signals: opened.signals,
        host: opened.host,
        notifier: opened.notifier,
        batch: Vec::with_capacity(event_loop::BATCH),
        protect_established: config.protect_established,
        traps: Traps::new(helper.ready.tripwire),
        withdrawn: VecDeque::new(),
        followed: Followed::default(),
        floods: Floods::default(),
        sweep_every,
        goodbye: Goodbye::Unsaid,
        sweep_at: Instant::now() + sweep_every,
        loaded: loaded.clone(),
        notes: HashMap::new(),
    };
    events.register().map_err(system("a descriptor cannot be watched"))?;
    events.register_decoys()?;
    if let Some(rings) = opened.rings {
        events.host.set_rings(rings);
    }
    Ok(events)
}

fn responder(loaded: &Loaded, opened: &Opened) -> Responder {
    let config = &loaded.config;
    Responder::new(responder::Setup {
        watch: opened.watch.clone(),
        never: opened.host.never_block(),
        table: opened.shared.table.clone(),
        order: config.block_with.clone(),
        custom: terms::custom(config),
        tell_all: terms::tells_all(config, opened.emitter.form()),
        verbose_ignore: terms::told_ignored(loaded),
        queue: QUEUE,
        gate: opened.shared.gate.clone(),
    })
}

/// The first events: what the start had to do without, and the start itself.
fn announce(events: &mut EventLoop, network: event::Network, lacking: &[String], lacks_tripwire: bool) {
    let now = events.shared.clock.now();
    lacking.iter().for_each(|lack| events.reporter.error(now, lack));
    events.reporter.start(now);
    if network == event::Network::Own {
        stderr::tell(network::OWN);
    }
    if lacks_tripwire {
        events.reporter.error(now, traps::LACKING);
    }
}

fn describe(config: &Config, opened: &Opened, helper: &Helper, confinement: Confinement) -> Start {
    let decoys = opened.decoys.ports();
    Start {
        version: crate::VERSION.to_owned(),
        pid: std::process::id(),
        helper_pid: helper.link.pid(),
        mode: config.flags.mode,
        network: opened.network,
        interfaces: match &config.interfaces {
            Interfaces::All => vec!["ALL".to_owned()],
            Interfaces::AllButLoopback => vec!["ALL_NLO".to_owned()],
            Interfaces::Named(names) => names.clone(),
        },
        tcp_ports: config.tcp_ports.in_short(),
        udp_ports: config.udp_ports.in_short(),
        decoy_tcp_ports: decoys.tcp.in_short(),
        decoy_udp_ports: decoys.udp.in_short(),
        restored: helper.ready.restored,
        confinement,
    }
}
