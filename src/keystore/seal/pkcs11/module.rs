//! Modules: each is loaded and initialised once, however many seals use it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};

use super::token::Refusal;

/// All that this process has loaded, by their real paths. A module is used by everyone who holds it.
static LOADED: Mutex<Option<HashMap<PathBuf, Arc<Pkcs11>>>> = Mutex::new(None);

/// Loads a module, unless it is loaded. It runs the code of a vendor, and may block.
pub(super) fn load(path: &Path) -> Result<Arc<Pkcs11>, Refusal> {
    let real = real(path)?;
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let loaded = loaded.get_or_insert_default();
    if let Some(module) = loaded.get(&real) {
        return Ok(module.clone());
    }
    let module = Pkcs11::new(&real).map_err(|error| {
        Refusal::Wrong(format!("the module cannot be used ({error}); name the PKCS#11 library of the token"))
    })?;
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        // Something else in this process, such as another module that stands before it.
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(error) => return Err(Refusal::Away(format!("the module does not start ({error})"))),
    }
    let module = Arc::new(module);
    loaded.insert(real, module.clone());
    Ok(module)
}

/// Loads a module again, since some look for tokens only then. One that others use stays as it is: their calls would fail.
pub(super) fn renew(path: &Path, module: Arc<Pkcs11>) -> Result<Arc<Pkcs11>, Refusal> {
    drop(module);
    {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = loaded.get_or_insert_default();
        let real = real(path)?;
        if let Some(module) = loaded.remove(&real) {
            match Arc::try_unwrap(module) {
                // One that does not end is loaded again all the same; then it says what is wrong with it.
                Ok(module) => drop(module.finalize()),
                Err(module) => drop(loaded.insert(real, module)),
            }
        }
    }
    load(path)
}

fn real(path: &Path) -> Result<PathBuf, Refusal> {
    path.canonicalize().map_err(|error| Refusal::Wrong(format!("the module cannot be read: {error}")))
}
