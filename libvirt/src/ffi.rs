//! What `virt` 0.5 lacks or does wrongly, on its raw bindings: the event loop's thread, event registration, bulk statistics.
//! The only file with `unsafe`.
#![allow(unsafe_code)]

use crate::domains::{self, DomainState};
use crate::error::{Error, Kind, Result};
use crate::event::{DomainEvent, Event};
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use tokio::sync::mpsc::UnboundedSender;
use virt::connect::Connect;
use virt::sys;

/// Registers libvirt's event loop, which must come before the first connection, and runs it for ever on a thread of its own.
pub(crate) fn start_event_loop() -> Result<()> {
    static STARTED: OnceLock<Result<()>> = OnceLock::new();
    STARTED
        .get_or_init(|| {
            // libvirt prints every error to stderr otherwise.
            virt::error::clear_error_callback();
            virt::event::event_register_default_impl().map_err(|e| Error::of("virEventRegisterDefaultImpl", &e))?;
            let turn = || loop {
                if virt::event::event_run_default_impl().is_err() {
                    // A failing poll would spin.
                    std::thread::sleep(std::time::Duration::from_millis(100));
                }
            };
            let spawned = std::thread::Builder::new().name("libvirt-events".into()).spawn(turn);
            spawned.map(drop).map_err(|e| Error::new("start the event loop", Kind::Other, e.to_string()))
        })
        .clone()
}

type Sink = UnboundedSender<Event>;

/// Registers for all events that we use. They end with the connection.
pub(crate) fn register(connect: &Connect, sink: &Sink) -> Result<(), virt::error::Error> {
    type Generic = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);
    // SAFETY (all three): libvirt's API gives each event id its own callback type and asks for it to be cast to the generic one;
    // it calls back with the type of the id (libvirt-domain.h, virConnectDomainEventID).
    let lifecycle = unsafe {
        std::mem::transmute::<
            unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int,
            Generic,
        >(on_lifecycle)
    };
    let agent = unsafe {
        std::mem::transmute::<
            unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void),
            Generic,
        >(on_agent)
    };
    type OnDevice = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *const c_char, *mut c_void);
    // SAFETY: as above; the three device events have one callback type.
    let device = unsafe { std::mem::transmute::<OnDevice, Generic>(on_device) };
    let reboot: Generic = on_reboot;
    for (id, callback, needed) in [
        (sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle, true),
        (sys::VIR_DOMAIN_EVENT_ID_REBOOT, reboot, false),
        (sys::VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE, agent, false),
        (sys::VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, device, false),
        (sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, device, false),
        (sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED, device, false),
    ] {
        // SAFETY: the connection is open; the opaque pointer is an owned sender that only `free_sink` takes back, which libvirt calls
        // once, when the callback is removed or the connection closes, on any thread (a sender is Send).
        let registered = unsafe {
            sys::virConnectDomainEventRegisterAny(
                connect.as_ptr(),
                std::ptr::null_mut(),
                id as c_int,
                Some(callback),
                boxed(sink),
                Some(free_sink),
            )
        };
        if registered < 0 && needed {
            return Err(virt::error::Error::last_error());
        }
    }
    register_pools(connect, sink);
    on_break(connect, sink);
    Ok(())
}

/// Sends [`Event::Disconnected`] when the connection breaks. A driver without remote peer refuses: it has none to lose.
pub(crate) fn on_break(connect: &Connect, sink: &Sink) {
    let opaque = boxed(sink);
    // SAFETY: as in `register`; when libvirt refuses it does not keep the pointer, so it is ours to free.
    unsafe {
        if sys::virConnectRegisterCloseCallback(connect.as_ptr(), Some(on_close), opaque, Some(free_sink)) < 0 {
            free_sink(opaque);
        }
    }
}

/// A driver without pool events is one whose pools are looked at less often.
fn register_pools(connect: &Connect, sink: &Sink) {
    type Generic = unsafe extern "C" fn(sys::virConnectPtr, sys::virStoragePoolPtr, *mut c_void);
    // SAFETY: as in `register`.
    unsafe {
        let lifecycle = std::mem::transmute::<
            unsafe extern "C" fn(sys::virConnectPtr, sys::virStoragePoolPtr, c_int, c_int, *mut c_void),
            Generic,
        >(on_pool);
        sys::virConnectStoragePoolEventRegisterAny(
            connect.as_ptr(),
            std::ptr::null_mut(),
            sys::VIR_STORAGE_POOL_EVENT_ID_LIFECYCLE as c_int,
            Some(lifecycle),
            boxed(sink),
            Some(free_sink),
        );
    }
}

fn boxed(sink: &Sink) -> *mut c_void {
    Box::into_raw(Box::new(sink.clone())).cast()
}

unsafe extern "C" fn free_sink(opaque: *mut c_void) {
    // SAFETY: made by `boxed`, given back once.
    drop(unsafe { Box::from_raw(opaque.cast::<Sink>()) });
}

/// Sends what `make` gives. No unwinding into C, no call of libvirt that would wait for this thread.
unsafe fn send(opaque: *mut c_void, make: impl FnOnce() -> Option<Event>) {
    // SAFETY: libvirt hands back the pointer of `boxed`, which lives until `free_sink`.
    let sink = unsafe { &*opaque.cast::<Sink>() };
    let _ = catch_unwind(AssertUnwindSafe(|| {
        if let Some(event) = make() {
            // A receiver that is gone means that the agent is stopping.
            let _ = sink.send(event);
        }
    }));
}

/// Name and UUID are held in the object: reading them asks nobody.
unsafe fn domain_event(domain: sys::virDomainPtr, kind: DomainEvent) -> Option<Event> {
    let mut uuid = [0 as c_char; sys::VIR_UUID_STRING_BUFLEN as usize];
    // SAFETY: the domain is valid during the callback; the buffer has the length that libvirt asks for.
    unsafe {
        if sys::virDomainGetUUIDString(domain, uuid.as_mut_ptr()) < 0 {
            return None;
        }
        let name = sys::virDomainGetName(domain);
        (!name.is_null()).then(|| Event::Domain { uuid: text(uuid.as_ptr()), name: text(name), kind })
    }
}

unsafe fn text(pointer: *const c_char) -> String {
    // SAFETY: the callers pass C strings that libvirt gave and that live during the call.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

unsafe extern "C" fn on_lifecycle(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: c_int,
    _detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    let kind = match event as u32 {
        sys::VIR_DOMAIN_EVENT_DEFINED => DomainEvent::Defined,
        sys::VIR_DOMAIN_EVENT_UNDEFINED => DomainEvent::Undefined,
        sys::VIR_DOMAIN_EVENT_STARTED => DomainEvent::Started,
        sys::VIR_DOMAIN_EVENT_STOPPED => DomainEvent::Stopped,
        _ => DomainEvent::Changed,
    };
    // SAFETY: both pointers are libvirt's, valid during the callback.
    unsafe { send(opaque, || domain_event(domain, kind)) };
    0
}

unsafe extern "C" fn on_reboot(_: sys::virConnectPtr, domain: sys::virDomainPtr, opaque: *mut c_void) {
    // SAFETY: as in `on_lifecycle`.
    unsafe { send(opaque, || domain_event(domain, DomainEvent::Rebooted)) };
}

unsafe extern "C" fn on_agent(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    state: c_int,
    _: c_int,
    opaque: *mut c_void,
) {
    let connected = state as u32 == sys::VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_CONNECTED;
    // SAFETY: as in `on_lifecycle`.
    unsafe { send(opaque, || domain_event(domain, DomainEvent::Agent { connected })) };
}

/// The device's alias is not read: whoever is told looks at the whole domain.
unsafe extern "C" fn on_device(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _alias: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_lifecycle`.
    unsafe { send(opaque, || domain_event(domain, DomainEvent::Changed)) };
}

unsafe extern "C" fn on_pool(
    _: sys::virConnectPtr,
    pool: sys::virStoragePoolPtr,
    _: c_int,
    _: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_lifecycle`; the name is held in the object.
    unsafe {
        send(opaque, || {
            let name = sys::virStoragePoolGetName(pool);
            (!name.is_null()).then(|| Event::Pool(text(name)))
        });
    }
}

unsafe extern "C" fn on_close(_: sys::virConnectPtr, reason: c_int, opaque: *mut c_void) {
    let why = match reason as u32 {
        sys::VIR_CONNECT_CLOSE_REASON_EOF => "libvirtd closed the connection",
        sys::VIR_CONNECT_CLOSE_REASON_KEEPALIVE => "libvirtd does not answer any more",
        sys::VIR_CONNECT_CLOSE_REASON_CLIENT => return,
        _ => "the connection broke",
    };
    // SAFETY: as in `on_lifecycle`.
    unsafe { send(opaque, || Some(Event::Disconnected(why.into()))) };
}

/// State of each domain by UUID, in one call: `virt`'s own wrapper leaks and has no way to read the result.
pub(crate) fn states(connect: &Connect) -> Result<BTreeMap<String, DomainState>, virt::error::Error> {
    let mut records: *mut sys::virDomainStatsRecordPtr = std::ptr::null_mut();
    // SAFETY: the connection is open and `records` is where the list is put.
    let count =
        unsafe { sys::virConnectGetAllDomainStats(connect.as_ptr(), sys::VIR_DOMAIN_STATS_STATE, &mut records, 0) };
    if count < 0 {
        return Err(virt::error::Error::last_error());
    }
    let mut states = BTreeMap::new();
    for index in 0..count as usize {
        // SAFETY: libvirt gives `count` records, each valid until the list is freed below.
        let (domain, state, reason) = unsafe {
            let record = &**records.add(index);
            (record.dom, parameter(record, c"state.state"), parameter(record, c"state.reason"))
        };
        // SAFETY: the record holds a reference to its domain.
        if let Some(Event::Domain { uuid, .. }) = unsafe { domain_event(domain, DomainEvent::Changed) } {
            states.insert(uuid, domains::state(state.unwrap_or(0), reason.unwrap_or(0)));
        }
    }
    // SAFETY: the list came from libvirt and is not used after this.
    unsafe { sys::virDomainStatsRecordListFree(records) };
    Ok(states)
}

/// # Safety
/// The record must be valid.
unsafe fn parameter(record: &sys::virDomainStatsRecord, name: &CStr) -> Option<c_int> {
    let mut value: c_int = 0;
    // SAFETY: libvirt says how many parameters there are; it checks name and type itself.
    let found = unsafe { sys::virTypedParamsGetInt(record.params, record.nparams, name.as_ptr(), &mut value) };
    (found == 1).then_some(value)
}
