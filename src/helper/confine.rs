//! The helper keeps CAP_NET_ADMIN and nothing else, before it touches the kernel or a file.
#![forbid(unsafe_code)]

use super::error::HelperError;
use crate::sandbox::identity::Identity;
use crate::sandbox::selfcheck::{Expectations, prove};
use crate::sandbox::{Capability, capabilities};

/// What it takes to write nftables rules, and all that is kept.
const KEPT: Capability = Capability::CAP_NET_ADMIN;

/// Leaves root for `run_as` (user and group) and every capability but one.
///
/// # Errors
/// The one that is kept is missing, a step failed, or something that must not work any more worked.
pub fn helper(run_as: Option<(u32, u32)>) -> Result<(), HelperError> {
    capabilities::require(&[KEPT])?;
    match run_as {
        Some((uid, gid)) => capabilities::become_user(&Identity { uid, gid }, &[KEPT]).map(drop)?,
        None => capabilities::keep_only(&[KEPT]).map(drop)?,
    }
    capabilities::no_new_privs()?;
    prove(&Expectations {
        lost: vec![Capability::CAP_NET_RAW, Capability::CAP_DAC_OVERRIDE, Capability::CAP_SYS_ADMIN],
        no_packet_socket: true,
        no_root: run_as.is_some(),
        ..Expectations::default()
    })?;
    Ok(())
}
