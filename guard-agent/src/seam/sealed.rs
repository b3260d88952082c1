//! What is too long for a message, or secret: a file in memory that nobody can change or name.
//!
//! In: a value. Out: a descriptor to pass, and the value again. On failure: an error; nothing is left behind, since the
//! memory goes with the last descriptor.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

/// Largest value in bytes as JSON: a configuration of 1 MiB with keys and roots, or 4,096 cgroups.
const MOST_BYTES: u64 = 64 * 1024 * 1024;

/// A value in a sealed file.
#[derive(Debug)]
pub struct Sealed(File);

impl Sealed {
    /// Writes a value.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn write<T: Serialize>(value: &T) -> io::Result<Self> {
        let text = Zeroizing::new(serde_json::to_vec(value).map_err(io::Error::other)?);
        let file = memfd_create("guard", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        let mut file = File::from(file);
        file.write_all(&text)?;
        let seals =
            SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        Ok(Self(file))
    }

    /// Reads the value behind a descriptor that came with a message.
    ///
    /// # Errors
    /// It holds something else.
    pub fn read<T: DeserializeOwned>(descriptor: OwnedFd) -> io::Result<T> {
        let mut file = File::from(descriptor);
        // The position is shared with whoever else was given it.
        file.rewind()?;
        let mut text = Zeroizing::new(Vec::new());
        file.take(MOST_BYTES).read_to_end(&mut text)?;
        serde_json::from_slice(&text).map_err(io::Error::other)
    }

    /// A descriptor to pass.
    ///
    /// # Errors
    /// There are too many open.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        Ok(self.0.try_clone()?.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_back_and_cannot_be_changed() {
        let sealed = Sealed::write(&vec!["a".repeat(100_000), "b".to_owned()]).unwrap();
        for _ in 0..2 {
            let back: Vec<String> = Sealed::read(sealed.descriptor().unwrap()).unwrap();
            assert_eq!((back[0].len(), back[1].as_str()), (100_000, "b"));
        }
        let mut file = File::from(sealed.descriptor().unwrap());
        file.rewind().unwrap();
        file.write_all(b"x").unwrap_err();
        Sealed::read::<u32>(sealed.descriptor().unwrap()).unwrap_err();
    }
}
