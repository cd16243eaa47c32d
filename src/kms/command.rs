//! Commands of clients, by number and by name.

use std::borrow::Cow;
use std::fmt;

use prost::Message;

use super::destroy::Step;
use super::members::Leave;
use super::record::Member;
use super::wire::{
    AssignPolicyRequest, CreateIdentityRequest, CreateKeyRequest, CreatePolicyRequest, DecryptRequest,
    DeleteKeyRequest, EditClusterRequest, EncryptRequest, ExportKeysRequest, GenerateKeyRequest, HsmRequest,
    IdentityRequest, ImportKeyRequest, KeyVersionRequest, ListRequest, MacRequest, NameRequest, frames,
};
use super::{Error, secret, transit};
use crate::auth::enclave::Identity;
use crate::telemetry::audit::{Commands, shown};

/// Makes of the table below: the actions, the commands with their messages, and how a frame becomes a command.
macro_rules! commands {
    ($($(#[$doc:meta])+ $visible:vis enum $kind:ident {
        $($command:ident($message:ty) = $number:literal $name:literal for $scope:ident,)*
        $(+ $inner:ident($inner_message:ty),)*
        $(#[cfg(test)] $only_in_tests:ident,)?
    })+ others { $($other:ident = $other_number:literal $other_name:literal,)* }) => {
        /// What a command does. The numbers are those of the wire format.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        #[expect(missing_docs, reason = "their names say it")]
        pub enum Action { $($($command = $number,)*)+ $($other = $other_number,)* }

        impl Action {
            /// All actions that have a command.
            pub const ALL: &[Self] = &[$($(Self::$command,)*)+];

            /// The actions of the Vault-compatible API that have none.
            pub const OTHERS: &[Self] = &[$(Self::$other),*];

            /// The action of the command with this number.
            pub fn of_number(number: u16) -> Option<Self> {
                match number { $($($number => Some(Self::$command),)*)+ _ => None }
            }

            /// The name in policies.
            pub fn as_str(self) -> &'static str {
                match self { $($(Self::$command => $name,)*)+ $(Self::$other => $other_name,)* }
            }

            fn scope(self) -> Scope {
                match self { $($(Self::$command => Scope::$scope,)*)+ $(Self::$other => Scope::Enclave,)* }
            }
        }

        $($(#[$doc])+
        #[derive(Debug)]
        $visible enum $kind {
            $($command($message),)*
            $(
                /// A change that no command of the protocol asks for.
                $inner($inner_message),
            )*
            $(
                /// A defect of ours: it panics.
                #[cfg(test)]
                $only_in_tests,
            )?
        }

        impl $kind {
            /// The name, or the prefix of names, that it is about; empty when it has none.
            pub(super) fn name(&self) -> &str {
                match self {
                    $(Self::$command(message) => message.name(),)*
                    $(Self::$inner(message) => message.name(),)*
                    $(#[cfg(test)] Self::$only_in_tests => "",)?
                }
            }
        })+

        enum Command { $($kind($kind),)+ }

        fn decode(action: Action, message: &[u8]) -> Result<Command, Error> {
            Ok(match action {
                $($(Action::$command => Command::$kind($kind::$command(Body::read(message)?)),)*)+
                $(Action::$other => return Err(Error::invalid("there is no such command")),)*
            })
        }
    };
}

// The table of all commands: message, number, name in policies, and what it is about. Rights and handlers are arms of
// `Reader::answer` and `Draft::apply`, which the compiler asks for.
commands! {
    /// A command that changes nothing.
    pub(super) enum Query {
        ClusterStatus(Nothing) = 3 "CLUSTER:STATUS" for Server,
        EnclaveStatus(NameRequest) = 103 "ENCLAVE:STATUS" for Server,
        EnclaveList(ListRequest) = 104 "ENCLAVE:LIST" for Server,
        KeyStatus(KeyVersionRequest) = 204 "KEY:STATUS" for Enclave,
        KeyEncrypt(EncryptRequest) = 205 "KEY:ENCRYPT" for Enclave,
        KeyDecrypt(DecryptRequest) = 206 "KEY:DECRYPT" for Enclave,
        KeyGenerate(GenerateKeyRequest) = 207 "KEY:GENERATE" for Enclave,
        KeyList(ListRequest) = 208 "KEY:LIST" for Enclave,
        KeyListVersions(ListRequest) = 209 "KEY:LISTVERSIONS" for Enclave,
        KeyMac(MacRequest) = 210 "KEY:MAC" for Enclave,
        KeyExport(ExportKeysRequest) = 1000 "KEY:EXPORT" for Enclave,
        PolicyGet(NameRequest) = 304 "POLICY:GET" for Enclave,
        PolicyStatus(NameRequest) = 305 "POLICY:STATUS" for Enclave,
        PolicyList(ListRequest) = 306 "POLICY:LIST" for Enclave,
        IdentityStatus(IdentityRequest) = 403 "IDENTITY:STATUS" for Enclave,
        IdentityList(ListRequest) = 404 "IDENTITY:LIST" for Enclave,
    }

    /// A command that changes something.
    pub enum Change {
        ClusterAddNode(NameRequest) = 1 "CLUSTER:ADDNODE" for Server,
        ClusterRemoveNode(NameRequest) = 2 "CLUSTER:REMOVENODE" for Server,
        ClusterEdit(EditClusterRequest) = 4 "CLUSTER:EDIT" for Server,
        ClusterAddHsm(HsmRequest) = 5 "CLUSTER:ADDHSM" for Server,
        ClusterRemoveHsm(HsmRequest) = 6 "CLUSTER:REMOVEHSM" for Server,
        EnclaveCreate(NameRequest) = 101 "ENCLAVE:CREATE" for Server,
        EnclaveDelete(NameRequest) = 102 "ENCLAVE:DELETE" for Server,
        KeyCreate(CreateKeyRequest) = 201 "KEY:CREATE" for Enclave,
        KeyDelete(DeleteKeyRequest) = 202 "KEY:DELETE" for Enclave,
        KeyImport(ImportKeyRequest) = 203 "KEY:IMPORT" for Enclave,
        PolicyCreate(CreatePolicyRequest) = 301 "POLICY:CREATE" for Enclave,
        PolicyDelete(NameRequest) = 302 "POLICY:DELETE" for Enclave,
        PolicyAssign(AssignPolicyRequest) = 303 "POLICY:ASSIGN" for Enclave,
        IdentityCreate(CreateIdentityRequest) = 401 "IDENTITY:CREATE" for Enclave,
        IdentityDelete(IdentityRequest) = 402 "IDENTITY:DELETE" for Enclave,
        + Transit(transit::Change),
        + Secret(secret::Change),
        + RevokeSession(Revocation),
        + Join(Member),
        + Leave(Leave),
        + Destroy(Step),
        #[cfg(test)] Defect,
    }

    others {
        SecretRead = 1001 "SECRET:READ",
        SecretWrite = 1002 "SECRET:WRITE",
        SecretDelete = 1003 "SECRET:DELETE",
        SecretList = 1004 "SECRET:LIST",
        SessionRevoke = 1005 "SESSION:REVOKE",
    }
}

/// What a command is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// The whole server.
    Server,
    /// What is in an enclave.
    Enclave,
}

/// The body of a command.
trait Body: Sized {
    fn read(message: &[u8]) -> Result<Self, Error>;

    /// The name, or the prefix of names, that it is about; empty when it has none.
    fn name(&self) -> &str;
}

impl transit::Change {
    fn name(&self) -> &str {
        &self.name
    }
}

impl Revocation {
    fn name(&self) -> &str {
        ""
    }
}

impl Member {
    fn name(&self) -> &str {
        &self.host
    }
}

/// The body of a command that needs none; what a client sends is ignored.
#[derive(Debug)]
pub(super) struct Nothing;

impl Body for Nothing {
    fn read(_: &[u8]) -> Result<Self, Error> {
        Ok(Self)
    }

    fn name(&self) -> &str {
        ""
    }
}

macro_rules! bodies {
    ($($message:ident $(. $name:ident)?,)+) => {
        $(impl Body for $message {
            fn read(message: &[u8]) -> Result<Self, Error> {
                Ok(Self::decode(message)?)
            }

            fn name(&self) -> &str {
                [$(self.$name.as_str())?].first().copied().unwrap_or_default()
            }
        })+
    };
}

bodies! {
    AssignPolicyRequest.identity,
    CreateIdentityRequest.identity,
    CreateKeyRequest.name,
    CreatePolicyRequest.name,
    DecryptRequest.name,
    DeleteKeyRequest.name,
    EditClusterRequest.host,
    EncryptRequest.name,
    ExportKeysRequest,
    GenerateKeyRequest.name,
    HsmRequest.name,
    IdentityRequest.identity,
    ImportKeyRequest.name,
    KeyVersionRequest.name,
    ListRequest.prefix,
    MacRequest.name,
    NameRequest.name,
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
        self.scope() == Scope::Server
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

impl Query {
    /// Whether it encrypts, decrypts or signs: what object stores wait for.
    pub(super) fn uses_a_key(&self) -> bool {
        matches!(self, Self::KeyEncrypt(_) | Self::KeyDecrypt(_) | Self::KeyGenerate(_) | Self::KeyMac(_))
    }

    /// Whether its answer is what this server knows, whatever others do.
    pub(super) fn is_about_this_server(&self) -> bool {
        matches!(self, Self::ClusterStatus(_))
    }

    /// How many keys it exports.
    fn exported(&self) -> usize {
        if let Self::KeyExport(request) = self { request.names.len() } else { 0 }
    }

    fn tell(&self, action: Action, commands: &mut Commands) {
        match self {
            // One entry for each exported key.
            Self::KeyExport(request) => request.names.iter().for_each(|name| commands.add(action.as_str(), name, "")),
            query => commands.add(action.as_str(), query.name(), ""),
        }
    }
}

impl Change {
    /// Details of the change for the log.
    fn detail(&self) -> Cow<'static, str> {
        match self {
            Self::KeyCreate(request) if request.add_version => "new version".into(),
            Self::KeyDelete(request) if request.all_versions => "all versions".into(),
            Self::KeyDelete(request) if request.version == 0 => "latest version".into(),
            Self::KeyDelete(request) => format!("version {}", request.version).into(),
            Self::KeyImport(ImportKeyRequest { transit: Some(_), .. }) => "transit".into(),
            Self::Transit(change) => change.what.detail(),
            Self::Destroy(step) => step.detail(),
            Self::Secret(change) => change.detail(),
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
    /// Whose session it was.
    pub identity: Identity,
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
    Read(Vec<(Action, Query)>),
    /// Either all applied, or none.
    Write(Vec<(Action, Change)>),
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
            match decode(action, frame.message)? {
                Command::Query(query) => {
                    exported += query.exported();
                    if exported > EXPORTED {
                        return Err(Error::invalid(format!("a request exports at most {EXPORTED} keys; send several")));
                    }
                    reads.push((action, query));
                }
                Command::Change(change) => writes.push((action, change)),
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
