//! What may this person do?

use super::super::facts::{Known, Needed};
use super::super::report::{Category, category, ok};

pub(super) fn judge(rights: &Known<Vec<(Needed, bool)>>) -> Category {
    let rights = match rights {
        Ok(rights) => rights,
        Err(unknown) => {
            let check = ok("rights", "your rights").unknown(unknown);
            return category("your rights", vec![check]);
        }
    };
    let checks = rights.iter().map(|(needed, has)| {
        let check = ok("rights", format!("you may {}: {}", needed.right, needed.purpose));
        let reason = format!("you may not {}", needed.right);
        match (has, needed.is_must) {
            (true, _) => check,
            (false, true) => check.failed(reason, needed.remedy.clone()),
            (false, false) => check.warning(reason, needed.remedy.clone()),
        }
    });
    category("your rights", checks.collect())
}
