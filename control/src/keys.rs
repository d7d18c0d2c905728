//! WireGuard's keys: 32 bytes, as base64 where people see them. Secret ones come from files, and are never shown.

use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::str::FromStr;

use base64ct::{Base64, Encoding};
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::{Serialize, Serializer};
use wireguard::handshake::Identity;
use wireguard::tunnel::{Random, SystemRandom};
use zeroize::{Zeroize, Zeroizing};

/// Characters of a key.
const TEXT: usize = 44;
/// More is no key, and is not read: a path may name anything.
const FILE_BYTES: usize = 256;

/// What somebody is known by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey(pub [u8; 32]);

/// A private or preshared key. Wiped when it goes; not shown, not serialised, not logged.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<[u8; 32]>);

/// Text that is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a key: {TEXT} characters of base64, as `margay wg genkey`, `pubkey` and `genpsk` print it")]
pub struct NotAKey;

/// Why a file holds no key. Nothing of its content is told.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The operating system refused.
    #[error("cannot read {path}: {error}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the operating system says.
        error: io::Error,
    },
    /// It cannot be made.
    #[error("cannot write {path}: {error}")]
    Unwritable {
        /// The file.
        path: String,
        /// What the operating system says.
        error: io::Error,
    },
    /// A device, a pipe or a folder.
    #[error("{0} is not a file; expected one that holds a key")]
    NotAFile(String),
    /// It holds something else.
    #[error("{0} holds no key; {NotAKey}")]
    NotAKey(String),
    /// It holds a key of zeros.
    #[error("{0} holds a key of zeros, which everybody knows; make one with `margay wg {1}`")]
    Zeros(String, &'static str),
}

impl PublicKey {
    /// Whether no secret can be agreed on with it (a point of low order, such as zeros).
    pub fn is_weak(&self) -> bool {
        wireguard::handshake::PeerKeys::new(&Identity::new(&[1; 32]), self.0, &[0; 32]).is_err()
    }
}

impl Secret {
    /// A secret of these bytes.
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self(Zeroizing::new(*bytes))
    }

    /// A new private key.
    pub fn private() -> Self {
        let mut secret = Self::preshared();
        // As X25519 uses it (RFC 7748 section 5).
        secret.0[0] &= 0xf8;
        secret.0[31] = secret.0[31] & 0x7f | 0x40;
        secret
    }

    /// A new preshared key.
    pub fn preshared() -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        SystemRandom.fill(&mut *bytes);
        Self(bytes)
    }

    /// Its bytes, for who encrypts with them.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// What peers know us by, if this is our private key.
    pub fn public(&self) -> PublicKey {
        PublicKey(*Identity::new(&self.0).public())
    }

    /// As base64, for a file or whoever asked for a new one.
    pub fn text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new([0; TEXT]);
        let text = Base64::encode(&*self.0, &mut *text).unwrap_or_default();
        Zeroizing::new(text.to_owned())
    }

    /// The key in a file, and whether others than its owner and group may read it. `kind` is the command that makes one.
    ///
    /// # Errors
    /// Why there is none.
    pub fn read(path: &Path, kind: &'static str) -> Result<(Self, bool), KeyFileError> {
        let name = || path.display().to_string();
        let unreadable = |error| KeyFileError::Unreadable { path: name(), error };
        // A pipe is opened without waiting for its other end, and then refused.
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(KeyFileError::NotAFile(name()));
        }
        let mut text = Zeroizing::new([0; FILE_BYTES]);
        let mut length = 0;
        while length < FILE_BYTES {
            match file.read(&mut text[length..]).map_err(unreadable)? {
                0 => break,
                read => length += read,
            }
        }
        let text = str::from_utf8(&text[..length]).map_err(|_| KeyFileError::NotAKey(name()))?;
        let key: Self = text.trim().parse().map_err(|_| KeyFileError::NotAKey(name()))?;
        if *key.0 == [0; 32] {
            return Err(KeyFileError::Zeros(name(), kind));
        }
        Ok((key, metadata.mode() & 0o007 != 0))
    }

    /// The private key in a file, which is made the first time.
    ///
    /// # Errors
    /// The file cannot be read or made, or holds something else.
    pub fn keep(path: &Path) -> Result<Self, KeyFileError> {
        let unwritable = |error| KeyFileError::Unwritable {
            path: path.display().to_string(),
            error,
        };
        match Self::private().write(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(unwritable(error)),
            _ => Self::read(path, "genkey").map(|(key, _)| key),
        }
    }

    /// Writes it to a new file that only we may read.
    ///
    /// # Errors
    /// The file exists or cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(self.text().as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()
    }
}

fn decode(text: &str) -> Result<Zeroizing<[u8; 32]>, NotAKey> {
    let mut bytes = Zeroizing::new([0; 32]);
    if text.len() != TEXT {
        return Err(NotAKey);
    }
    match Base64::decode(text, &mut *bytes) {
        Ok(whole) if whole.len() == 32 => Ok(bytes),
        _ => Err(NotAKey),
    }
}

impl FromStr for PublicKey {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        Ok(Self(*decode(text)?))
    }
}

impl FromStr for Secret {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        decode(text).map(Self)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; TEXT];
        out.write_str(Base64::encode(&self.0, &mut text).unwrap_or_default())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("(secret)")
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // What was written there by mistake may be a secret: it is not repeated.
        let mut text = String::deserialize(deserializer).map_err(|_| D::Error::custom(NotAKey))?;
        let key = text.parse().map_err(D::Error::custom);
        text.zeroize();
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_rfc_7748_as_base64() {
        // Section 6.1, Alice.
        let private: Secret = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=".parse().unwrap();
        let public = private.public();
        assert_eq!(public.to_string(), "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=");
        assert_eq!(public.to_string().parse(), Ok(public));
        assert_eq!(*private.text(), "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=");
        assert_eq!(format!("{private:?}"), "(secret)");
        assert!(PublicKey([0; 32]).is_weak() && !public.is_weak());
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let good = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
        let bad = [
            "",
            &good[1..],
            &good[..43],
            &good.replace('/', "*"),
            &good.replace("mo=", "mp="),
            "aGVsbG8=",
            &format!("{good}\n"),
            &"ä".repeat(22),
        ];
        for text in bad {
            assert_eq!(text.parse::<PublicKey>(), Err(NotAKey), "{text:?}");
        }
    }

    #[test]
    fn new_keys_differ_and_files_are_ours_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (path, key) = (folder.path().join("key"), Secret::private());
        assert!(key != Secret::private());
        key.write(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let (read, open) = Secret::read(&path, "genkey").unwrap();
        assert!(read == key && !open);
        assert!(key.write(&path).is_err(), "what is there stays");
        assert!(Secret::keep(&path).unwrap() == key);
        let new = folder.path().join("new");
        assert!(Secret::keep(&new).unwrap() == Secret::keep(&new).unwrap(), "made once");
        let refused = |path: &Path| Secret::read(path, "genkey").unwrap_err().to_string();
        assert!(refused(folder.path()).contains("is not a file"));
        assert!(refused(Path::new("/dev/zero")).contains("is not a file"));
        assert!(refused(&folder.path().join("none")).contains("cannot read"));
        let pipe = folder.path().join("pipe");
        assert!(
            std::process::Command::new("mkfifo")
                .arg(&pipe)
                .status()
                .unwrap()
                .success()
        );
        assert!(
            refused(&pipe).contains("is not a file"),
            "nobody writes to it, and nobody waits"
        );
        fs::write(&path, "root:x:0:0").unwrap();
        let said = refused(&path);
        assert!(said.contains("holds no key") && !said.contains("root"), "{said}");
        fs::write(&path, "A".repeat(43) + "=").unwrap();
        assert!(refused(&path).contains("zeros"));
    }
}
