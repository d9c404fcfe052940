//! How an object's deletion is carried out. Pure; the shell reads the object and its CRD afresh first.

use crds::{TEARDOWN_ANNOTATION, Teardown, TeardownPolicy};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// What becomes of the things on the host: `by_spec` is what the object's own deletionPolicy says.
///
/// Deleting a CRD marks every object of its kind as deleted, which nobody meant for the guests: then all is kept.
pub fn policy(crd_terminating: bool, metadata: &ObjectMeta, by_spec: TeardownPolicy) -> TeardownPolicy {
    let annotation = metadata.annotations.as_ref().and_then(|all| all.get(TEARDOWN_ANNOTATION));
    match annotation.map(String::as_str) {
        _ if crd_terminating => TeardownPolicy::Keep,
        Some("Orphan") => TeardownPolicy::Orphan,
        Some(_) | None => by_spec,
    }
}

/// What the controller does next about a deleted object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask the host for it, and wait until it says done.
    Ask(Teardown),
    /// Take the finalizer off: the host has done it, or there is nothing to do there.
    Release(TeardownPolicy),
    /// Take the finalizer off, and tell that nobody on the host could be asked: whatever is there stays.
    LetGo(TeardownPolicy),
}

/// The next step for an object of this uid, bound or not, with the teardown that its status shows.
pub fn next(uid: &str, decided: TeardownPolicy, bound: bool, host_exists: bool, stored: Option<&Teardown>) -> Next {
    // What was written once holds: the agent may be half way through it. A host that is gone is half way through nothing.
    let stored = stored.filter(|teardown| teardown.uid.as_deref() == Some(uid));
    let given_up = decided == TeardownPolicy::Keep || (decided == TeardownPolicy::Orphan && !host_exists);
    let policy = match stored.and_then(|teardown| teardown.policy) {
        Some(earlier) if !given_up => earlier,
        Some(_) | None => decided,
    };
    let done = stored.is_some_and(|teardown| teardown.done.as_deref() == Some(uid));
    if done || !bound || policy == TeardownPolicy::Keep {
        return Next::Release(policy);
    }
    if !host_exists && policy != TeardownPolicy::Delete {
        return Next::LetGo(policy);
    }
    Next::Ask(Teardown { uid: Some(uid.into()), policy: Some(policy), done: None })
}

/// The controller's part of a stored teardown.
pub fn asked(stored: Option<&Teardown>) -> Option<Teardown> {
    stored.filter(|teardown| teardown.uid.is_some()).map(|teardown| Teardown { done: None, ..teardown.clone() })
}

/// What an owner's teardown means for the volumes that it made: absent where they go their own way.
pub fn passed_down(owners: TeardownPolicy) -> Option<TeardownPolicy> {
    match owners {
        TeardownPolicy::Keep => Some(TeardownPolicy::Keep),
        TeardownPolicy::Orphan => Some(TeardownPolicy::Retain),
        TeardownPolicy::Delete | TeardownPolicy::Retain => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(policy: TeardownPolicy, done: bool) -> Teardown {
        Teardown { uid: Some("u".into()), policy: Some(policy), done: done.then(|| "u".into()) }
    }

    #[test]
    fn a_crd_that_goes_keeps_everything_whatever_the_object_says() {
        let mut metadata = ObjectMeta::default();
        assert_eq!(policy(true, &metadata, TeardownPolicy::Delete), TeardownPolicy::Keep);
        metadata.annotations = Some([(TEARDOWN_ANNOTATION.into(), "Orphan".into())].into());
        assert_eq!(policy(true, &metadata, TeardownPolicy::Delete), TeardownPolicy::Keep);
        assert_eq!(policy(false, &metadata, TeardownPolicy::Delete), TeardownPolicy::Orphan);
    }

    #[test]
    fn a_bound_object_waits_for_its_host() {
        let policy = TeardownPolicy::Delete;
        assert_eq!(next("u", policy, true, true, None), Next::Ask(asked(policy, false)));
        assert_eq!(next("u", policy, true, true, Some(&asked(policy, false))), Next::Ask(asked(policy, false)));
        assert_eq!(next("u", policy, true, true, Some(&asked(policy, true))), Next::Release(policy));
        assert_eq!(next("u", policy, false, true, None), Next::Release(policy));
        // Nobody can prove that the guest is gone.
        assert_eq!(next("u", policy, true, false, None), Next::Ask(asked(policy, false)));
        assert_eq!(next("u", TeardownPolicy::Orphan, true, false, None), Next::LetGo(TeardownPolicy::Orphan));
    }

    #[test]
    fn a_deletion_that_waits_for_a_host_that_is_gone_ends_by_the_annotation() {
        let stored = asked(TeardownPolicy::Delete, false);
        let orphan = TeardownPolicy::Orphan;
        assert_eq!(next("u", orphan, true, false, Some(&stored)), Next::LetGo(orphan));
        assert_eq!(next("u", orphan, true, true, Some(&stored)), Next::Ask(stored));
    }

    #[test]
    fn nothing_is_told_to_be_left_where_nothing_was_or_the_host_was_asked() {
        let done = asked(TeardownPolicy::Retain, true);
        assert_eq!(next("u", TeardownPolicy::Retain, true, false, Some(&done)), Next::Release(TeardownPolicy::Retain));
        assert_eq!(next("u", TeardownPolicy::Retain, false, false, None), Next::Release(TeardownPolicy::Retain));
        assert_eq!(next("u", TeardownPolicy::Keep, true, false, None), Next::Release(TeardownPolicy::Keep));
        assert_eq!(next("u", TeardownPolicy::Retain, true, false, None), Next::LetGo(TeardownPolicy::Retain));
    }

    #[test]
    fn a_teardown_of_an_object_that_is_gone_counts_for_nothing() {
        let old = Teardown { uid: Some("old".into()), done: Some("old".into()), policy: Some(TeardownPolicy::Delete) };
        assert_eq!(
            next("u", TeardownPolicy::Retain, true, true, Some(&old)),
            Next::Ask(asked(TeardownPolicy::Retain, false))
        );
    }

    #[test]
    fn a_crd_that_goes_while_a_teardown_is_under_way_stops_asking() {
        let stored = asked(TeardownPolicy::Delete, false);
        assert_eq!(next("u", TeardownPolicy::Keep, true, true, Some(&stored)), Next::Release(TeardownPolicy::Keep));
    }
}
