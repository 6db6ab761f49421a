//! A checked configuration, with the origin of every key: what reading one brings.
//!
//! Runs in the sensor and the command line. Must never be handed out with an error in it.
#![forbid(unsafe_code)]

use std::path::Path;

use ipnet::IpNet;

use super::files::load_again;
use super::{Overrides, Setting};
use crate::config::Config;
use crate::config::error::{ConfigError, Origin};

/// A configuration without errors.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it says, typed.
    pub config: Config,
    /// Every key of the table in its order: the text in force and where it comes from.
    pub settings: Vec<Setting>,
    /// The networks of IGNORE_FILE. [`parse`](super::parse) leaves them empty.
    pub ignored: Vec<IpNet>,
    /// What the administrator should know, though nothing is wrong.
    pub warnings: Vec<ConfigError>,
    /// The configuration file.
    pub name: String,
    /// What it was read with, to read it again.
    pub(super) overrides: Overrides,
}

impl Loaded {
    /// Reads the files again, with the same command line.
    ///
    /// # Errors
    /// Every error of both files.
    pub fn reload(&self) -> Result<Loaded, Vec<ConfigError>> {
        load_again(Path::new(&self.name), &self.overrides)
    }

    /// Who is never blocked: NEVER_BLOCK and the ignore file.
    pub fn never_block(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.config.never_block.iter().chain(&self.ignored).copied()
    }

    /// Where the value of the key `name` comes from.
    pub fn origin(&self, name: &str) -> Origin {
        let setting = self.settings.iter().find(|setting| setting.key.name == name);
        setting.map_or(Origin::Default, |setting| setting.origin.clone())
    }
}
