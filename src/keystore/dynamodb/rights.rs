//! Whether the credentials have the rights that they need.

use super::answer::{Refusal, judge};
use super::place::{NAME, REPLACE, VALUE};
use super::store::{NEVER, Store};
use crate::keystore::{Access, Error};

/// Checks that the credentials allow `access`, by calls whose conditions contradict themselves, so that they change
/// nothing.
pub(super) async fn check(store: &Store, access: Access) -> Result<(), Error> {
    let mut missing = Vec::new();
    let mut note = |action: &'static str, answer: Result<(), Refusal>| match answer {
        Ok(()) | Err(Refusal::Condition) => Ok(()),
        Err(Refusal::Denied(_)) => {
            missing.push(format!("dynamodb:{action}"));
            Ok(())
        }
        Err(refusal) => Err(Error::from(refusal)),
    };
    let key = store.key("claviger-check");
    let query = store.query("").limit(1).send().await.map(drop);
    note("Query", query.map_err(|error| judge(&store.place, "Query", error)))?;
    let get =
        store.calls.get_item().table_name(store.place.table.as_str()).set_key(Some(key.clone())).consistent_read(true);
    note("GetItem", get.send().await.map(drop).map_err(|error| judge(&store.place, "GetItem", error)))?;
    note("BatchGetItem", store.batch_get(vec![key.clone()]).await.map(drop))?;
    if access >= Access::Create {
        let put = store.calls.put_item().table_name(store.place.table.as_str()).set_item(Some(key.clone()));
        let put = put.condition_expression(NEVER).expression_attribute_names("#name", NAME);
        note("PutItem", put.send().await.map(drop).map_err(|error| judge(&store.place, "PutItem", error)))?;
    }
    if access == Access::Serve {
        let delete = store.calls.delete_item().table_name(store.place.table.as_str()).set_key(Some(key.clone()));
        let delete = delete.condition_expression(NEVER).expression_attribute_names("#name", NAME);
        note("DeleteItem", delete.send().await.map(drop).map_err(|error| judge(&store.place, "DeleteItem", error)))?;
    }
    if access == Access::Replace {
        let update = store.calls.update_item().table_name(store.place.table.as_str()).set_key(Some(key));
        let update = update.update_expression("REMOVE #value").condition_expression(NEVER);
        let update = update.expression_attribute_names("#name", NAME).expression_attribute_names("#value", VALUE);
        note(REPLACE, update.send().await.map(drop).map_err(|error| judge(&store.place, REPLACE, error)))?;
    }
    match missing.is_empty() {
        true => Ok(()),
        false => {
            let text = format!("the credentials do not allow {}; {}", missing.join(", "), store.place.missing());
            Err(Error::Failed(text.into()))
        }
    }
}
