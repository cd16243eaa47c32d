//! Commands of clients, by number and by name.

use std::borrow::Cow;
use std::fmt;

use prost::Message;

use super::wire::{
    AssignPolicyRequest, CreateIdentityRequest, CreateKeyRequest, CreatePolicyRequest, DecryptRequest,
    DeleteKeyRequest, EncryptRequest, ExportKeysRequest, Frame, GenerateKeyRequest, HsmRequest, IdentityRequest,
    ImportKeyRequest, KeyVersionRequest, ListRequest, MacRequest, NameRequest, frames,
};
use super::{Error, transit};
use crate::telemetry::audit::{Commands, shown};

/// Makes the list of all actions: variant, number, name in policies. Those behind the semicolon have no command in the
/// protocol.
macro_rules! actions {
    ($($action:ident = $number:literal $name:literal,)*; $($other:ident = $other_number:literal $other_name:literal,)*) => {
        /// What a command does. The numbers are those of the wire format.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        #[expect(missing_docs, reason = "their names say it")]
        pub enum Action { $($action = $number,)* $($other = $other_number,)* }

        impl Action {
            /// All actions that have a command.
            pub const ALL: &[Self] = &[$(Self::$action),*];

            /// The actions of the Vault-compatible API that have none.
            pub const OTHERS: &[Self] = &[$(Self::$other),*];

            /// The action of the command with this number.
            pub fn of_number(number: u16) -> Option<Self> {
                match number { $($number => Some(Self::$action),)* _ => None }
            }

            /// The name in policies.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$action => $name,)* $(Self::$other => $other_name,)* }
            }
        }
    };
}

actions! {
    ClusterAddNode = 1 "CLUSTER:ADDNODE",
    ClusterRemoveNode = 2 "CLUSTER:REMOVENODE",
    ClusterStatus = 3 "CLUSTER:STATUS",
    ClusterEdit = 4 "CLUSTER:EDIT",
    ClusterAddHsm = 5 "CLUSTER:ADDHSM",
    ClusterRemoveHsm = 6 "CLUSTER:REMOVEHSM",
    EnclaveCreate = 101 "ENCLAVE:CREATE",
    EnclaveDelete = 102 "ENCLAVE:DELETE",
    EnclaveStatus = 103 "ENCLAVE:STATUS",
    EnclaveList = 104 "ENCLAVE:LIST",
    KeyCreate = 201 "KEY:CREATE",
    KeyDelete = 202 "KEY:DELETE",
    KeyImport = 203 "KEY:IMPORT",
    KeyStatus = 204 "KEY:STATUS",
    KeyEncrypt = 205 "KEY:ENCRYPT",
    KeyDecrypt = 206 "KEY:DECRYPT",
    KeyGenerate = 207 "KEY:GENERATE",
    KeyList = 208 "KEY:LIST",
    KeyListVersions = 209 "KEY:LISTVERSIONS",
    KeyMac = 210 "KEY:MAC",
    KeyExport = 1000 "KEY:EXPORT",
    PolicyCreate = 301 "POLICY:CREATE",
    PolicyDelete = 302 "POLICY:DELETE",
    PolicyAssign = 303 "POLICY:ASSIGN",
    PolicyGet = 304 "POLICY:GET",
    PolicyStatus = 305 "POLICY:STATUS",
    PolicyList = 306 "POLICY:LIST",
    IdentityCreate = 401 "IDENTITY:CREATE",
    IdentityDelete = 402 "IDENTITY:DELETE",
    IdentityStatus = 403 "IDENTITY:STATUS",
    IdentityList = 404 "IDENTITY:LIST",
    ;
    SecretRead = 1001 "SECRET:READ",
    SecretWrite = 1002 "SECRET:WRITE",
    SecretDelete = 1003 "SECRET:DELETE",
    SecretList = 1004 "SECRET:LIST",
    SessionRevoke = 1005 "SESSION:REVOKE",
}

impl Action {
    /// The action with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().chain(Self::OTHERS).copied().find(|action| action.as_str() == name)
    }

    /// The number in the wire format.
    pub fn number(self) -> u16 {
        self as u16
    }

    /// Whether it is about the whole server rather than an enclave.
    pub fn is_about_server(self) -> bool {
        self.number() < Self::KeyCreate.number()
    }

    /// Whether it can take a right away from somebody.
    pub fn changes_rights(self) -> bool {
        matches!(
            self,
            Self::EnclaveDelete
                | Self::PolicyCreate
                | Self::PolicyDelete
                | Self::PolicyAssign
                | Self::IdentityCreate
                | Self::IdentityDelete
        )
    }

    /// Whether only system administrators may do it, whatever a policy says.
    pub fn is_for_sysadmins(self) -> bool {
        self.is_about_server() || self == Self::KeyExport
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A command that changes nothing.
#[derive(Debug)]
pub(super) enum Read {
    ClusterStatus,
    EnclaveStatus(NameRequest),
    EnclaveList(ListRequest),
    KeyStatus(KeyVersionRequest),
    KeyEncrypt(EncryptRequest),
    KeyDecrypt(DecryptRequest),
    KeyGenerate(GenerateKeyRequest),
    KeyList(ListRequest),
    KeyListVersions(ListRequest),
    KeyMac(MacRequest),
    KeyExport(ExportKeysRequest),
    PolicyGet(NameRequest),
    PolicyStatus(NameRequest),
    PolicyList(ListRequest),
    IdentityStatus(IdentityRequest),
    IdentityList(ListRequest),
}

/// A command that changes something.
#[derive(Debug)]
pub enum Write {
    /// Part of clustering, which this server does not have.
    ClusterNodes,
    ClusterAddHsm(HsmRequest),
    ClusterRemoveHsm(HsmRequest),
    EnclaveCreate(NameRequest),
    EnclaveDelete(NameRequest),
    KeyCreate(CreateKeyRequest),
    KeyDelete(DeleteKeyRequest),
    KeyImport(ImportKeyRequest),
    /// A change that no command of the protocol asks for.
    Transit(transit::Change),
    /// The same: the session with the token of this hash ends.
    RevokeSession(Revocation),
    PolicyCreate(CreatePolicyRequest),
    PolicyDelete(NameRequest),
    PolicyAssign(AssignPolicyRequest),
    IdentityCreate(CreateIdentityRequest),
    IdentityDelete(IdentityRequest),
}

impl Read {
    /// The name or the prefix of names that it is about; empty when it has none.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::ClusterStatus | Self::KeyExport(_) => "",
            Self::EnclaveStatus(request) | Self::PolicyGet(request) | Self::PolicyStatus(request) => &request.name,
            Self::KeyStatus(request) => &request.name,
            Self::KeyEncrypt(request) => &request.name,
            Self::KeyDecrypt(request) => &request.name,
            Self::KeyGenerate(request) => &request.name,
            Self::KeyMac(request) => &request.name,
            Self::IdentityStatus(request) => &request.identity,
            Self::EnclaveList(request)
            | Self::KeyList(request)
            | Self::KeyListVersions(request)
            | Self::PolicyList(request)
            | Self::IdentityList(request) => &request.prefix,
        }
    }

    /// How many keys it exports.
    fn exported(&self) -> usize {
        if let Self::KeyExport(request) = self { request.names.len() } else { 0 }
    }

    fn tell(&self, action: Action, commands: &mut Commands) {
        match self {
            // One entry for each exported key.
            Self::KeyExport(request) => request.names.iter().for_each(|name| commands.add(action.as_str(), name, "")),
            read => commands.add(action.as_str(), read.name(), ""),
        }
    }
}

impl Write {
    /// The name of what it changes; empty when it has none.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::ClusterNodes => "",
            Self::ClusterAddHsm(request) | Self::ClusterRemoveHsm(request) => &request.name,
            Self::EnclaveCreate(request) | Self::EnclaveDelete(request) | Self::PolicyDelete(request) => &request.name,
            Self::KeyCreate(request) => &request.name,
            Self::KeyDelete(request) => &request.name,
            Self::KeyImport(request) => &request.name,
            Self::Transit(change) => &change.name,
            Self::RevokeSession(_) => "",
            Self::PolicyCreate(request) => &request.name,
            Self::PolicyAssign(request) => &request.identity,
            Self::IdentityCreate(request) => &request.identity,
            Self::IdentityDelete(request) => &request.identity,
        }
    }

    /// Details of the change for the log.
    fn detail(&self) -> Cow<'static, str> {
        match self {
            Self::KeyCreate(request) if request.add_version => "new version".into(),
            Self::KeyDelete(request) if request.all_versions => "all versions".into(),
            Self::KeyDelete(request) if request.version == 0 => "latest version".into(),
            Self::KeyDelete(request) => format!("version {}", request.version).into(),
            Self::KeyImport(ImportKeyRequest { transit: Some(_), .. }) => "transit".into(),
            Self::Transit(change) => change.what.detail(),
            Self::PolicyAssign(request) => format!("policy {}", shown(&request.policy)).into(),
            Self::IdentityCreate(request) if request.is_service_account => "service account".into(),
            Self::IdentityCreate(request) => shown(&request.privilege).into(),
            _ => "".into(),
        }
    }

    /// Adds the command to the log line and the audit event.
    pub(super) fn tell(&self, action: Action, commands: &mut Commands) {
        commands.add(action.as_str(), self.name(), self.detail());
    }
}

/// The end of a session that its client does not want any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revocation {
    /// The SHA-256 of its token.
    pub hash: [u8; 32],
    /// When it would have ended by itself, in seconds since 1970. Then the revocation is dropped.
    pub end: i64,
}

/// The most keys that one request may export: each is named in the audit event.
const EXPORTED: usize = 1_000;
/// The most commands of one request.
pub(super) const COMMANDS: usize = 1_000;

/// A request: commands of one kind.
#[derive(Debug)]
pub(super) enum Request {
    /// All answered from one snapshot.
    Read(Vec<(Action, Read)>),
    /// Either all applied, or none.
    Write(Vec<(Action, Write)>),
}

enum Command {
    Read(Read),
    Write(Write),
}

impl Request {
    /// Its commands, for the log and the audit event.
    pub(super) fn tell(&self, enclave: &str) -> Commands {
        let mut commands = Commands::of(enclave);
        match self {
            Self::Read(reads) => reads.iter().for_each(|(action, read)| read.tell(*action, &mut commands)),
            Self::Write(writes) => writes.iter().for_each(|(action, write)| write.tell(*action, &mut commands)),
        }
        commands
    }

    /// Parses the body of a request.
    ///
    /// # Errors
    /// When the body is malformed or empty, holds too much, or mixes reads and writes.
    pub(super) fn parse(body: &[u8]) -> Result<Self, Error> {
        // Before anything is made of them.
        if frames(body).take(COMMANDS + 1).count() > COMMANDS {
            return Err(Error::invalid(format!("a request holds at most {COMMANDS} commands; send several requests")));
        }
        let (mut reads, mut writes, mut exported) = (Vec::new(), Vec::new(), 0);
        for frame in frames(body) {
            let frame = frame.map_err(|truncated| Error::invalid(truncated.to_string()))?;
            let action = Action::of_number(frame.command)
                .ok_or_else(|| Error::invalid(format!("there is no command {}", frame.command)))?;
            match decode(action, frame)? {
                Command::Read(read) => {
                    exported += read.exported();
                    if exported > EXPORTED {
                        return Err(Error::invalid(format!("a request exports at most {EXPORTED} keys; send several")));
                    }
                    reads.push((action, read));
                }
                Command::Write(write) => writes.push((action, write)),
            }
        }
        match (reads.is_empty(), writes.is_empty()) {
            (false, true) => Ok(Self::Read(reads)),
            (true, false) => Ok(Self::Write(writes)),
            (true, true) => Err(Error::invalid("the request holds no command")),
            (false, false) => Err(Error::invalid("a request holds either reads or writes, not both")),
        }
    }
}

/// The actions of the commands in a request's body, in order. It checks no rights.
///
/// # Errors
/// When the body is malformed or empty, holds too much, or mixes reads and writes.
pub fn actions(body: &[u8]) -> Result<Vec<Action>, Error> {
    Ok(match Request::parse(body)? {
        Request::Read(reads) => reads.into_iter().map(|(action, _)| action).collect(),
        Request::Write(writes) => writes.into_iter().map(|(action, _)| action).collect(),
    })
}

fn decode(action: Action, frame: Frame<'_>) -> Result<Command, Error> {
    fn read<M: Message + Default>(make: fn(M) -> Read, frame: Frame<'_>) -> Result<Command, Error> {
        Ok(Command::Read(make(M::decode(frame.message)?)))
    }
    fn write<M: Message + Default>(make: fn(M) -> Write, frame: Frame<'_>) -> Result<Command, Error> {
        Ok(Command::Write(make(M::decode(frame.message)?)))
    }
    match action {
        Action::ClusterAddNode | Action::ClusterRemoveNode | Action::ClusterEdit => {
            Ok(Command::Write(Write::ClusterNodes))
        }
        Action::ClusterAddHsm => write(Write::ClusterAddHsm, frame),
        Action::ClusterRemoveHsm => write(Write::ClusterRemoveHsm, frame),
        Action::ClusterStatus => Ok(Command::Read(Read::ClusterStatus)),
        Action::EnclaveCreate => write(Write::EnclaveCreate, frame),
        Action::EnclaveDelete => write(Write::EnclaveDelete, frame),
        Action::EnclaveStatus => read(Read::EnclaveStatus, frame),
        Action::EnclaveList => read(Read::EnclaveList, frame),
        Action::KeyCreate => write(Write::KeyCreate, frame),
        Action::KeyDelete => write(Write::KeyDelete, frame),
        Action::KeyImport => write(Write::KeyImport, frame),
        Action::KeyStatus => read(Read::KeyStatus, frame),
        Action::KeyEncrypt => read(Read::KeyEncrypt, frame),
        Action::KeyDecrypt => read(Read::KeyDecrypt, frame),
        Action::KeyGenerate => read(Read::KeyGenerate, frame),
        Action::KeyList => read(Read::KeyList, frame),
        Action::KeyListVersions => read(Read::KeyListVersions, frame),
        Action::KeyMac => read(Read::KeyMac, frame),
        Action::KeyExport => read(Read::KeyExport, frame),
        Action::PolicyCreate => write(Write::PolicyCreate, frame),
        Action::PolicyDelete => write(Write::PolicyDelete, frame),
        Action::PolicyAssign => write(Write::PolicyAssign, frame),
        Action::PolicyGet => read(Read::PolicyGet, frame),
        Action::PolicyStatus => read(Read::PolicyStatus, frame),
        Action::PolicyList => read(Read::PolicyList, frame),
        Action::IdentityCreate => write(Write::IdentityCreate, frame),
        Action::IdentityDelete => write(Write::IdentityDelete, frame),
        Action::IdentityStatus => read(Read::IdentityStatus, frame),
        Action::IdentityList => read(Read::IdentityList, frame),
        Action::SecretRead
        | Action::SecretWrite
        | Action::SecretDelete
        | Action::SecretList
        | Action::SessionRevoke => Err(Error::invalid("there is no such command")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kms::wire::append;

    fn parse(commands: &[Action]) -> Result<Request, Error> {
        let mut body = Vec::new();
        commands.iter().for_each(|action| append(action.number(), b"", &mut body));
        Request::parse(&body)
    }

    #[test]
    fn numbers_and_names_lead_to_the_same_action() {
        for action in Action::ALL {
            assert_eq!(Action::of_number(action.number()), Some(*action));
            assert_eq!(Action::parse(action.as_str()), Some(*action));
        }
        for action in Action::OTHERS {
            assert_eq!(Action::of_number(action.number()), None, "no command is for it");
            assert_eq!(Action::parse(action.as_str()), Some(*action));
        }
        assert_eq!((Action::of_number(0), Action::parse("KEY:NONE")), (None, None));
    }

    #[test]
    fn reads_and_writes_do_not_mix() {
        use Action::{EnclaveList, KeyCreate, KeyStatus, PolicyCreate};
        assert!(matches!(parse(&[KeyStatus, EnclaveList]), Ok(Request::Read(reads)) if reads.len() == 2));
        assert!(matches!(parse(&[KeyCreate, PolicyCreate]), Ok(Request::Write(writes)) if writes.len() == 2));
        for wrong in [&[KeyStatus, KeyCreate][..], &[KeyCreate, KeyStatus], &[]] {
            assert!(matches!(parse(wrong), Err(Error::Invalid(_))), "{wrong:?}");
        }
    }

    #[test]
    fn a_request_exports_a_bounded_number_of_keys() {
        let body = |commands: usize, names: usize| {
            let names = vec!["k".to_owned(); names];
            let message = ExportKeysRequest { names, ..ExportKeysRequest::default() }.encode_to_vec();
            let mut body = Vec::new();
            (0..commands).for_each(|_| append(Action::KeyExport.number(), &message, &mut body));
            body
        };
        assert!(Request::parse(&body(1, EXPORTED)).is_ok());
        assert!(matches!(Request::parse(&body(1, EXPORTED + 1)), Err(Error::Invalid(_))));
        assert!(matches!(Request::parse(&body(2, EXPORTED)), Err(Error::Invalid(_))));
    }

    #[test]
    fn a_request_holds_so_many_commands_and_no_more() {
        assert!(parse(&[Action::KeyCreate; COMMANDS]).is_ok());
        assert!(matches!(parse(&[Action::KeyCreate; COMMANDS + 1]), Err(Error::Invalid(_))));
    }

    proptest! {
        #[test]
        fn foreign_bytes_are_refused_or_read(number in prop::sample::select(Action::ALL), message: Vec<u8>) {
            let mut body = Vec::new();
            append(number.number(), &message, &mut body);
            let _ = Request::parse(&body);
            let _ = Request::parse(&message);
        }
    }
}
