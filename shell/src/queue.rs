//! One queue a kind: whatever may need a look is pushed, an object that waits twice is looked at once, and never by two passes at a time.

use crate::error::Error;
use crate::metrics::Metrics;
use crate::retry::{Case, Retries};
use futures::StreamExt;
use kube::Resource;
use kube::runtime::applier;
use kube::runtime::controller::{Action, Config};
use kube::runtime::reflector::{ObjectRef, Store};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Passes of a kind at once: after a restart every object wants one, and calls that stand in line run into their deadlines.
const AT_ONCE: u16 = 128;

/// The entrance of a queue; cheap to clone.
pub struct Queue<K: Resource<DynamicType = ()>>(mpsc::UnboundedSender<ObjectRef<K>>);

/// Its other end, for [`work`].
pub struct Exit<K: Resource<DynamicType = ()>>(mpsc::UnboundedReceiver<ObjectRef<K>>);

impl<K: Resource<DynamicType = ()>> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Queue(self.0.clone())
    }
}

impl<K: Resource<DynamicType = ()>> Queue<K> {
    /// Asks for a look at an object.
    pub fn push(&self, object: ObjectRef<K>) {
        // Nobody listens once the process stops.
        let _ = self.0.send(object);
    }

    /// Asks for a look at all of them.
    pub fn push_all<'a>(&self, objects: impl IntoIterator<Item = &'a Arc<K>>)
    where
        K: 'a,
    {
        objects.into_iter().for_each(|object| self.push(ObjectRef::from_obj(&**object)));
    }
}

/// A queue.
pub fn queue<K: Resource<DynamicType = ()>>() -> (Queue<K>, Exit<K>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Queue(sender), Exit(receiver))
}

/// Makes passes for ever. An object that is no longer in the store is not looked at.
pub async fn work<K, C, F>(
    exit: Exit<K>,
    store: Store<K>,
    context: Arc<C>,
    metrics: Arc<Metrics>,
    pass: impl Fn(Arc<K>, Arc<C>) -> F,
) where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + 'static,
    F: Future<Output = Result<Case, Error>> + Send + 'static,
{
    let retries = Arc::new(Retries::default());
    let (retries, metrics) = (&retries, &metrics);
    let one = move |object: Arc<K>, context: Arc<C>| {
        let name = ObjectRef::from_obj(&*object).to_string();
        let (retries, metrics) = (retries.clone(), metrics.clone());
        let result = pass(object, context);
        Box::pin(async move {
            let result = result.await;
            metrics.pass(&K::kind(&()), result.is_ok());
            let case = result.unwrap_or_else(|error| {
                match error.retry() {
                    Case::Conflict => tracing::debug!("{name}: {error}"),
                    _ => tracing::warn!("{name}: {error}"),
                }
                error.retry()
            });
            Ok::<_, Infallible>(Action::requeue(retries.after(&name, case)))
        })
    };
    let never = |_: Arc<K>, error: &Infallible, _: Arc<C>| -> Action { match *error {} };
    let requests = futures::stream::unfold(exit.0, |mut receiver| async move {
        let object = receiver.recv().await?;
        Some((Ok::<_, Infallible>(object), receiver))
    });
    applier(one, never, context, store, Box::pin(requests), Config::default().concurrency(AT_ONCE))
        .for_each(|_| async {})
        .await;
}
