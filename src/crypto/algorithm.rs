//! The two kinds of master key.

use std::fmt;

/// What a master key encrypts with. `Display` gives the name that clients see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// AES-256-GCM under a subkey made by HMAC-SHA-256.
    Aes256,
    /// ChaCha20-Poly1305 under a subkey made by HChaCha20.
    ChaCha20,
}

impl Algorithm {
    /// Parses one of the four names that stored keys, ciphertexts and clients have used; case matters.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "AES256" | "AES256-GCM_SHA256" => Some(Self::Aes256),
            "ChaCha20" | "XCHACHA20-POLY1305" => Some(Self::ChaCha20),
            _ => None,
        }
    }

    /// The kind for new keys: AES where this CPU has instructions for it and for GCM's
    /// multiplication, else ChaCha20, which needs none to be fast and free of timing leaks.
    pub fn preferred() -> Self {
        if cpu_has_aes_gcm() { Self::Aes256 } else { Self::ChaCha20 }
    }

    /// The one of the two that this is not.
    pub(super) fn other(self) -> Self {
        match self {
            Self::Aes256 => Self::ChaCha20,
            Self::ChaCha20 => Self::Aes256,
        }
    }

    /// The name that clients see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Aes256 => "AES256",
            Self::ChaCha20 => "ChaCha20",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(target_arch = "x86_64")]
fn cpu_has_aes_gcm() -> bool {
    std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
}

#[cfg(target_arch = "aarch64")]
fn cpu_has_aes_gcm() -> bool {
    // Rust's "aes" stands for both AES and PMULL.
    std::arch::is_aarch64_feature_detected!("aes")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn cpu_has_aes_gcm() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_parses() {
        for (text, algorithm) in [
            ("AES256", Algorithm::Aes256),
            ("AES256-GCM_SHA256", Algorithm::Aes256),
            ("ChaCha20", Algorithm::ChaCha20),
            ("XCHACHA20-POLY1305", Algorithm::ChaCha20),
        ] {
            assert_eq!(Algorithm::parse(text), Some(algorithm), "{text}");
            assert_eq!(Algorithm::parse(&algorithm.to_string()), Some(algorithm));
        }
        for text in ["", "aes256", "AES128", "AES-256-GCM-HMAC-SHA-256", "ChaCha20Poly1305"] {
            assert_eq!(Algorithm::parse(text), None, "{text}");
        }
    }
}
