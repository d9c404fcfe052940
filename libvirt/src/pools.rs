//! Calls about storage pools.

use crate::Libvirt;
use crate::domains::absent_as_none;
use crate::error::Result;
use virt::connect::Connect;
use virt::storage_pool::StoragePool;

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSummary {
    /// UUID in its usual form.
    pub uuid: String,
    /// Name.
    pub name: String,
    /// Whether it is started.
    pub active: bool,
    /// Whether libvirt starts it with itself.
    pub autostart: bool,
    /// Bytes in the file system below; 0 while it is not started.
    pub capacity: u64,
    /// Bytes in use there.
    pub allocation: u64,
    /// Bytes free there.
    pub available: u64,
}

/// A pool and its definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolDetail {
    /// As in lists.
    pub summary: PoolSummary,
    /// Its definition.
    pub xml: String,
}

impl Libvirt {
    /// The pool of this name.
    pub async fn pool(&self, name: &str) -> Result<Option<PoolDetail>> {
        let name = name.to_owned();
        absent_as_none(
            self.list("virStoragePoolGetXMLDesc", move |connect| {
                let pool = connect.lookup_storage_pool_by_name(&name)?;
                Ok(PoolDetail { summary: summary(&pool)?, xml: pool.xml_desc(0)? })
            })
            .await,
        )
    }

    /// Defines a pool.
    pub async fn define_pool(&self, xml: String) -> Result<()> {
        let call = move |connect: &Connect| connect.define_storage_pool_xml(&xml, 0).map(drop);
        self.step("virStoragePoolDefineXML", self.lanes.settings().call, call).await
    }

    /// Starts a pool.
    pub async fn start_pool(&self, uuid: &str) -> Result<()> {
        self.with_pool("virStoragePoolCreate", uuid, |pool| pool.create(0)).await
    }

    /// Looks again at what lies in a pool.
    pub async fn refresh_pool(&self, uuid: &str) -> Result<()> {
        self.with_pool("virStoragePoolRefresh", uuid, |pool| pool.refresh(0)).await
    }

    /// Stops a pool; its data stays.
    pub async fn stop_pool(&self, uuid: &str) -> Result<()> {
        self.with_pool("virStoragePoolDestroy", uuid, StoragePool::destroy).await
    }

    /// Removes a pool's definition; its data stays.
    pub async fn undefine_pool(&self, uuid: &str) -> Result<()> {
        self.with_pool("virStoragePoolUndefine", uuid, StoragePool::undefine).await
    }

    /// Sets whether libvirt starts it with itself.
    pub async fn set_pool_autostart(&self, uuid: &str, on: bool) -> Result<()> {
        self.with_pool("virStoragePoolSetAutostart", uuid, move |pool| pool.set_autostart(on)).await
    }

    async fn with_pool(
        &self,
        act: &'static str,
        uuid: &str,
        call: impl FnOnce(&StoragePool) -> Result<(), virt::error::Error> + Send + 'static,
    ) -> Result<()> {
        let uuid = uuid.to_owned();
        let deadline = self.lanes.settings().call;
        self.step(act, deadline, move |connect| call(&connect.lookup_storage_pool_by_uuid_string(&uuid)?)).await
    }
}

fn summary(pool: &StoragePool) -> Result<PoolSummary, virt::error::Error> {
    let info = pool.info()?;
    Ok(PoolSummary {
        uuid: pool.uuid_string()?,
        name: pool.name()?,
        active: pool.is_active()?,
        autostart: pool.autostart()?,
        capacity: info.capacity,
        allocation: info.allocation,
        available: info.available,
    })
}
