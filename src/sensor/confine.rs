//! The sensor gives up every right, before it has a thread and before it looks at a packet; and proves that it did.
#![forbid(unsafe_code)]

use crate::event;
use crate::sandbox::identity::Identity;
use crate::sandbox::in_force::{Confinement, Witness};
use crate::sandbox::selfcheck::{Expectations, prove};
use crate::sandbox::{Capability, SandboxError, capabilities};

/// The user id that the sensor ends with: RUN_AS where it starts as root, its own elsewhere.
pub fn own_uid(identity: Identity) -> u32 {
    match nix::unistd::geteuid() {
        uid if uid.is_root() => identity.uid,
        uid => uid.as_raw(),
    }
}

/// How both processes are confined, as the kernel tells it.
pub struct Confined {
    sensor: Confinement,
    helper: Confinement,
}

impl Confined {
    /// As the `start` event says it.
    pub fn described(&self) -> event::Confinement {
        let roles = [("sensor", &self.sensor), ("helper", &self.helper)];
        event::Confinement {
            in_force: roles.iter().map(|(role, confinement)| describe(role, confinement)).collect(),
            missing: Vec::new(),
        }
    }
}

fn describe(role: &str, confinement: &Confinement) -> String {
    let rights = match confinement.permitted.as_slice() {
        [] => "no capabilities".to_owned(),
        some => some.join(" "),
    };
    let privileges = if confinement.no_new_privs { ", no new privileges" } else { "" };
    let seccomp = if confinement.seccomp { ", seccomp" } else { "" };
    format!("{role}: uid {}, {rights}{privileges}{seccomp}", confinement.uid)
}

/// Confines the sensor; the helper, `helper` by process, has confined itself before it was ready.
///
/// # Errors
/// See [`sensor`].
pub fn both(identity: Identity, helper: u32) -> Result<Confined, SandboxError> {
    let helper = Witness::of_process(helper)?.in_force()?;
    Ok(Confined { sensor: sensor(identity)?, helper })
}

/// Leaves root, every capability, and every way to get one back. What is open stays open; nothing else can be had.
///
/// # Errors
/// A step failed, or something that must not work any more worked.
fn sensor(identity: Identity) -> Result<Confinement, SandboxError> {
    let witness = Witness::open()?;
    capabilities::become_user(&identity, &[])?;
    capabilities::no_new_privs()?;
    prove(&Expectations {
        lost: vec![Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW, Capability::CAP_DAC_OVERRIDE],
        no_packet_socket: true,
        no_root: true,
        ..Expectations::default()
    })?;
    witness.in_force()
}
