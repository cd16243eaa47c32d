//! The one suite that every keystore passes.
