//! Every operation of the KES API: the one list that the server, the clients and the command line share.

use crate::operation::Operation;

/// Declares the operations and [`ALL`].
macro_rules! operations {
    ($($name:ident = $operation:expr;)*) => {
        $(#[doc = stringify!($operation)] pub const $name: Operation = $operation;)*

        /// All of them, in the order in which `/v1/api` lists them.
        pub const ALL: &[Operation] = &[$($name),*];
    };
}

operations! {
    VERSION = Operation::get("/version");
    READY = Operation::get("/v1/ready");
    STATUS = Operation::get("/v1/status");
    METRICS = Operation::get("/v1/metrics");
    API = Operation::get("/v1/api");
    KEY_CREATE = Operation::change("/v1/key/create/");
    KEY_IMPORT = Operation::change("/v1/key/import/");
    KEY_DESCRIBE = Operation::get("/v1/key/describe/");
    KEY_DELETE = Operation::delete("/v1/key/delete/");
    KEY_LIST = Operation::get("/v1/key/list/");
    KEY_GENERATE = Operation::put("/v1/key/generate/");
    KEY_ENCRYPT = Operation::put("/v1/key/encrypt/");
    KEY_DECRYPT = Operation::put("/v1/key/decrypt/");
    KEY_HMAC = Operation::put("/v1/key/hmac/");
    POLICY_DESCRIBE = Operation::get("/v1/policy/describe/");
    POLICY_READ = Operation::get("/v1/policy/read/");
    POLICY_LIST = Operation::get("/v1/policy/list/");
    IDENTITY_DESCRIBE = Operation::get("/v1/identity/describe/");
    IDENTITY_LIST = Operation::get("/v1/identity/list/");
    IDENTITY_SELF = Operation::get("/v1/identity/self/describe");
    LOG_ERROR = Operation::get("/v1/log/error");
    LOG_AUDIT = Operation::get("/v1/log/audit");
}

/// The paths that may be answered without a certificate, when `skip_auth` says so.
pub const SKIP_AUTH: [&str; 4] = [READY.path, STATUS.path, METRICS.path, API.path];

/// The operation that a client asks for with this path.
pub fn of(path: &str) -> Option<&'static Operation> {
    let is_of = |operation: &&Operation| match operation.path.ends_with('/') {
        true => path.starts_with(operation.path),
        false => path == operation.path,
    };
    ALL.iter().find(is_of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_route_is_an_operation_and_each_operation_a_route() {
        let routes = super::super::routes();
        let routes: Vec<_> = routes.iter().map(|route| (route.describe().0, route.describe().1)).collect();
        let all: Vec<_> = ALL.iter().map(|operation| (operation.method, operation.path)).collect();
        assert_eq!(routes, all);
    }

    #[test]
    fn a_path_is_of_the_operation_that_it_begins_with() {
        assert_eq!(of("/v1/key/create/my-key"), Some(&KEY_CREATE));
        assert_eq!(of("/v1/status"), Some(&STATUS));
        assert_eq!(of("/v1/identity/self/describe"), Some(&IDENTITY_SELF));
        assert_eq!((of("/v1/statusx"), of("/v1/nowhere")), (None, None));
    }
}
