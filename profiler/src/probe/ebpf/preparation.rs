//! How an observation's probes come to be: what is asked of the kernel whatever the target is takes a while, and the target can
//! be read meanwhile.

use aya::EbpfLoader;

use super::{EbpfProbe, kernel_types::KernelTypes, object::OBJECT};
use crate::probe::{ProbeSettings, error::ProbeError};

/// What [`EbpfProbe::load_prepared`] begins with.
pub struct Preparation {
    pub(super) kernel: KernelTypes,
    /// It reads the kernel's types for itself when it is made.
    pub(super) loader: EbpfLoader<'static>,
}

impl Preparation {
    /// Asks.
    #[must_use]
    pub fn begin() -> Self {
        Self { kernel: KernelTypes::read(), loader: EbpfLoader::new() }
    }
}

impl EbpfProbe {
    /// Makes the maps and loads the programs for the best way to attach that this kernel has.
    ///
    /// # Errors
    /// [`ProbeError::NotPermitted`] and [`ProbeError::KernelTooOld`] first of all.
    pub fn load(settings: &ProbeSettings) -> Result<Self, ProbeError> {
        Self::load_prepared(Preparation::begin(), settings)
    }

    /// The same with the preparation made before.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_prepared(preparation: Preparation, settings: &ProbeSettings) -> Result<Self, ProbeError> {
        Self::load_from(OBJECT, preparation, settings)
    }

    /// As [`Self::load`], from another object with the same maps and programs; its bytes are aligned to 8.
    ///
    /// # Errors
    /// As [`Self::load`], and [`ProbeError::Object`] where something is missing in it.
    pub fn load_object(object: &[u8], settings: &ProbeSettings) -> Result<Self, ProbeError> {
        Self::load_from(object, Preparation::begin(), settings)
    }
}
