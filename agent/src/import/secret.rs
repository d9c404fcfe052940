//! Reads what an import's server demands: from the controller's copy in this host's own namespace, never from the user's Secret.

use super::Failure;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use plan::names;
use plan::storage_volume::secret::{Credential, MISSING, credential};

/// What the copy for the volume of this UID holds; `named`: the user's Secret, for the words to its user.
///
/// # Errors
/// When there is no copy or it cannot be read.
pub async fn read(client: &Client, host: &str, uid: &str, named: &str) -> Result<Credential, Failure> {
    let copies = Api::<Secret>::namespaced(client.clone(), &names::host_namespace(host));
    let copy = copies.get_opt(&names::import_secret(uid)).await;
    let copy =
        copy.map_err(|error| Failure::new("ImportFailed", format!("read the copy of Secret {named}: {error}")))?;
    copy.and_then(|copy| credential(&copy.data?)).ok_or_else(|| {
        let message = format!(
            "Secret {named} of the volume's namespace is not there, has neither token nor username and password, or is of another type than \
             Opaque or kubernetes.io/basic-auth; make or correct it, it is looked at every 30 s"
        );
        Failure::new(MISSING, message)
    })
}
