//! Tries every command as every kind of caller, in its own enclave and in others.

use super::*;
use crate::kms::command::Request;
use crate::kms::wire::append;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    Root,
    SysAdmin,
    Admin,
    AdminElsewhere,
    UserAllowed,
    UserDenied,
    UserOther,
    UserWithout,
    ServiceOfRoot,
    ServiceOfAdmin,
    ServiceOfAllowed,
    /// A system administrator by an account of the other enclave.
    SysAdminElsewhere,
    /// The same, and here an account without rights that an admin of this enclave made.
    SysAdminLocked,
    /// A service account of the administrator in the other enclave, and here such an account.
    ServiceOfRootLocked,
    /// A service account, in the other enclave, of its system administrator.
    ServiceOfSysAdminElsewhere,
    /// The same, and here an account without rights.
    ServiceOfSysAdminLocked,
    Nobody,
}

const CALLERS: [Caller; 17] = [
    Caller::Root,
    Caller::SysAdmin,
    Caller::Admin,
    Caller::AdminElsewhere,
    Caller::UserAllowed,
    Caller::UserDenied,
    Caller::UserOther,
    Caller::UserWithout,
    Caller::ServiceOfRoot,
    Caller::ServiceOfAdmin,
    Caller::ServiceOfAllowed,
    Caller::SysAdminElsewhere,
    Caller::SysAdminLocked,
    Caller::ServiceOfRootLocked,
    Caller::ServiceOfSysAdminElsewhere,
    Caller::ServiceOfSysAdminLocked,
    Caller::Nobody,
];

impl Caller {
    fn identity(self) -> Identity {
        if self == Self::Root { admin().identity } else { identity(self as u8 + 1) }
    }

    /// Whether it may do this on `target` in the enclave "here".
    fn may(self, action: Action) -> bool {
        match self {
            caller if caller.is_sysadmin() => true,
            Self::Admin | Self::UserAllowed | Self::ServiceOfAdmin | Self::ServiceOfAllowed => {
                !action.is_for_sysadmins()
            }
            _ => false,
        }
    }

    fn is_sysadmin(self) -> bool {
        matches!(
            self,
            Self::Root
                | Self::SysAdmin
                | Self::ServiceOfRoot
                | Self::SysAdminElsewhere
                | Self::SysAdminLocked
                | Self::ServiceOfRootLocked
                | Self::ServiceOfSysAdminElsewhere
                | Self::ServiceOfSysAdminLocked
        )
    }
}

/// What commands are about: the same text for keys, policies and identities, so that one policy fits all.
fn target() -> Identity {
    identity(200)
}

fn setup() -> Keeper {
    let mut keeper = keeper();
    let root = admin().identity;
    change(&mut keeper, root, "", &[create_enclave("here"), create_enclave("there")]).expect("created");
    let all = |pattern: &'static str| Action::ALL.iter().map(|action| (*action, pattern)).collect::<Vec<_>>();
    let set = |caller: Caller, privilege| create_identity(caller.identity(), privilege);
    let commands = [
        create_policy("all", &all("*"), &[]),
        create_policy("denied", &all("*"), &all("*")),
        create_policy("other", &all("other*"), &[]),
        set(Caller::SysAdmin, "SysAdmin"),
        set(Caller::Admin, "Admin"),
        set(Caller::UserAllowed, "User"),
        set(Caller::UserDenied, "User"),
        set(Caller::UserOther, "User"),
        set(Caller::UserWithout, "User"),
        assign("all", Caller::UserAllowed.identity()),
        assign("denied", Caller::UserDenied.identity()),
        assign("other", Caller::UserOther.identity()),
        create_service_account(Caller::ServiceOfRoot.identity()),
        create_identity(target(), "User"),
        create_key("k"),
        create_policy("k", &[], &[]),
    ];
    change(&mut keeper, root, "here", &commands).expect("set up");
    let commands = [
        set(Caller::AdminElsewhere, "Admin"),
        set(Caller::SysAdminElsewhere, "SysAdmin"),
        set(Caller::SysAdminLocked, "SysAdmin"),
        create_service_account(Caller::ServiceOfRootLocked.identity()),
    ];
    change(&mut keeper, root, "there", &commands).expect("set up");
    for (maker, enclave, service) in [
        (Caller::Admin, "here", Caller::ServiceOfAdmin),
        (Caller::UserAllowed, "here", Caller::ServiceOfAllowed),
        (Caller::SysAdminElsewhere, "there", Caller::ServiceOfSysAdminElsewhere),
        (Caller::SysAdminElsewhere, "there", Caller::ServiceOfSysAdminLocked),
    ] {
        change(&mut keeper, maker.identity(), enclave, &[create_service_account(service.identity())]).expect("set up");
    }
    // An admin of this enclave tries to lock out those who stand above it.
    for locked in [Caller::SysAdminLocked, Caller::ServiceOfRootLocked, Caller::ServiceOfSysAdminLocked] {
        let commands = [set(locked, "User"), assign("denied", locked.identity())];
        change(&mut keeper, Caller::Admin.identity(), "here", &commands).expect("set up");
    }
    keeper
}

/// A message that fits every command: name, prefix or identity is field 1 in all of them.
fn body(action: Action, name: &str) -> Vec<u8> {
    let mut body = Vec::new();
    append(action.number(), &prost::Message::encode_to_vec(&self::name(name)), &mut body);
    body
}

/// What becomes of a command: done, or why not.
fn outcome(keeper: &mut Keeper, caller: Identity, enclave: &str, action: Action, name: &str) -> Result<(), Error> {
    match Request::parse(&body(action, name))? {
        Request::Write(commands) => change(keeper, caller, enclave, &commands),
        Request::Read(reads) => {
            let reader = Reader {
                snapshot: keeper.snapshot(),
                caller,
                enclave,
                encoding: Encoding::Protobuf,
                has_kes: false,
                cluster: &no_cluster,
            };
            reads.iter().try_for_each(|(action, read)| answer(&reader, *action, read).map(drop))
        }
    }
}

/// The name that a command is about, such that it exists where that matters.
fn existing(action: Action) -> String {
    match action {
        Action::IdentityCreate | Action::IdentityDelete | Action::IdentityStatus => target().to_string(),
        Action::EnclaveStatus | Action::EnclaveDelete => "there".into(),
        Action::KeyCreate | Action::KeyImport | Action::EnclaveCreate => "new".into(),
        _ => "k".into(),
    }
}

#[test]
fn everybody_may_do_what_the_rules_say_and_nothing_else() {
    for caller in CALLERS {
        for action in Action::ALL {
            let mut keeper = setup();
            let outcome = outcome(&mut keeper, caller.identity(), "here", *action, &existing(*action));
            let is_denied = matches!(outcome, Err(Error::Denied));
            assert_eq!(is_denied, !caller.may(*action), "{caller:?} {action}: {outcome:?}");
        }
    }
}

#[test]
fn nobody_outside_of_an_enclave_learns_what_is_in_it_or_that_it_is_there() {
    let mut keeper = setup();
    for caller in CALLERS.into_iter().filter(|caller| !caller.is_sysadmin() && *caller != Caller::AdminElsewhere) {
        for action in Action::ALL {
            for (enclave, name) in [("there", "k"), ("there", "nothing"), ("nowhere", "k"), ("", "k")] {
                let outcome = outcome(&mut keeper, caller.identity(), enclave, *action, name);
                assert!(matches!(outcome, Err(Error::Denied)), "{caller:?} {action} {enclave}: {outcome:?}");
            }
        }
    }
}

#[test]
fn what_is_denied_is_denied_whether_it_is_there_or_not() {
    let mut keeper = setup();
    for caller in [Caller::UserDenied, Caller::UserOther, Caller::UserWithout, Caller::AdminElsewhere, Caller::Nobody] {
        for action in Action::ALL {
            for name in [existing(*action), "nothing".into(), "-".into(), identity(250).to_string()] {
                let outcome = outcome(&mut keeper, caller.identity(), "here", *action, &name);
                assert!(matches!(outcome, Err(Error::Denied)), "{caller:?} {action} {name}: {outcome:?}");
            }
        }
    }
}

#[test]
fn a_system_administrator_is_told_that_an_enclave_is_not_there() {
    let mut keeper = setup();
    for caller in CALLERS.into_iter().filter(|caller| caller.is_sysadmin()) {
        for action in Action::ALL.iter().filter(|action| !action.is_about_server()) {
            let outcome = outcome(&mut keeper, caller.identity(), "nowhere", *action, &existing(*action));
            assert!(matches!(outcome, Err(Error::NoEnclave)), "{caller:?} {action}: {outcome:?}");
        }
    }
}
