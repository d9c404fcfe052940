//! The facade on libvirt's own test driver, in this process. All of it shares one host, so each test has names of its own.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use libvirt::{DomainEvent, DomainState, Event, Kind, Libvirt, OffReason, Settings, ShutdownMode, Take};
use libvirt_xml::snapshot::{self, Part, Place, Request, RequestedDisk, Snapshot};
use libvirt_xml::{Accelerator, Cpu, Disk, DiskFormat, Domain, Interface, InterfaceKind, Mark, Owner, Pool, Run};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;

async fn start() -> (Libvirt, UnboundedReceiver<Event>) {
    let (libvirt, mut events) = Libvirt::start(Settings::new("test:///default")).unwrap();
    assert_eq!(within(events.recv()).await, Some(Event::Connected));
    // libxml2 sets up its RelaxNG types at the first use, unguarded: two first uses at once fail (seen with 2.9.14).
    static SCHEMA: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
    SCHEMA.get_or_init(async || drop(libvirt.define("<domain/>".into()).await)).await;
    (libvirt, events)
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it took too long")
}

fn domain(number: u8) -> Domain {
    Domain {
        name: format!("shop.web{number}"),
        uuid: format!("00000000-0000-4000-8000-0000000000{number:02x}"),
        mark: Some(Mark {
            domain: format!("00000000-0000-4000-8000-0000000000{number:02x}"),
            owner: Owner { cluster: "c".into(), namespace: "shop".into(), name: "web".into(), uid: "u".into() },
            run: Run::Starting,
            restarted_at: None,
            applied: None,
        }),
        accelerator: Accelerator::Test,
        machine: String::new(),
        arch: "i686".into(),
        memory_kib: 64 * 1024,
        vcpus: 1,
        cpu: Cpu::HostModel,
        kernel: None,
        disks: vec![Disk {
            name: "root".into(),
            file: "/pool/a.qcow2".into(),
            format: DiskFormat::Qcow2,
            target: "vda".into(),
            boot_order: Some(1),
            read_only: false,
        }],
        interfaces: vec![Interface { name: "lan".into(), mac: "52:54:00:00:00:01".into(), kind: InterfaceKind::User }],
        console_log: Some("/log/a.log".into()),
        guest_agent: true,
    }
}

async fn next_of(events: &mut UnboundedReceiver<Event>, uuid: &str) -> DomainEvent {
    within(async {
        loop {
            match events.recv().await.expect("the stream ended") {
                Event::Domain { uuid: of, kind, .. } if of == uuid => return kind,
                _ => {}
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_is_attached_to_the_running_domain_alone() {
    let (libvirt, _events) = start().await;
    let mut want = domain(9);
    libvirt.define(want.render().unwrap()).await.unwrap();
    libvirt.create(&want.uuid).await.unwrap();
    want.disks.push(Disk {
        name: "data".into(),
        file: "/pool/b.raw".into(),
        target: "vdb".into(),
        ..want.disks[0].clone()
    });
    want.disks[1].boot_order = None;
    let xml = want.render().unwrap();
    let device = libvirt_xml::disk_device(&xml, "data", libvirt_xml::Address::AsDefined).unwrap();
    libvirt.attach(&want.uuid, device).await.unwrap();
    let detail = libvirt.domain(&want.uuid).await.unwrap().unwrap();
    assert!(detail.live_xml.unwrap().contains("/pool/b.raw") && !detail.inactive_xml.contains("/pool/b.raw"));
    libvirt.destroy(&want.uuid).await.unwrap();
    libvirt.undefine(&want.uuid).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_lives_and_dies_and_each_change_is_told() {
    let (libvirt, mut events) = start().await;
    let want = domain(1);
    let uuid = want.uuid.as_str();
    libvirt.define(want.render().unwrap()).await.unwrap();
    assert_eq!(next_of(&mut events, uuid).await, DomainEvent::Defined);
    assert_eq!(libvirt.domain_named(&want.name).await.unwrap().as_deref(), Some(uuid));

    libvirt.create(uuid).await.unwrap();
    assert_eq!(next_of(&mut events, uuid).await, DomainEvent::Started);
    let summary = libvirt.domains().await.unwrap().into_iter().find(|d| d.uuid == uuid).unwrap();
    assert_eq!((summary.state, summary.name.as_str()), (DomainState::Running, want.name.as_str()));

    libvirt.set_autostart(uuid, true).await.unwrap();
    assert!(libvirt.domain(uuid).await.unwrap().unwrap().autostart);

    libvirt.shutdown(uuid, ShutdownMode::Acpi).await.unwrap();
    assert_eq!(next_of(&mut events, uuid).await, DomainEvent::Stopped);
    let off = libvirt.domain(uuid).await.unwrap().unwrap();
    assert_eq!((off.summary.state, off.live_xml), (DomainState::Off(OffReason::Shutdown), None));

    libvirt.create(uuid).await.unwrap();
    libvirt.destroy(uuid).await.unwrap();
    assert_eq!(libvirt.domain(uuid).await.unwrap().unwrap().summary.state, DomainState::Off(OffReason::Destroyed));
    libvirt.undefine(uuid).await.unwrap();
    assert_eq!(libvirt.domain(uuid).await.unwrap(), None);
    assert!(libvirt.calls()["virDomainCreate"] == 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_read_back_from_libvirt_as_the_same() {
    let (libvirt, _events) = start().await;
    let want = domain(2);
    libvirt.define(want.render().unwrap()).await.unwrap();
    let xml = libvirt.domain(&want.uuid).await.unwrap().unwrap().inactive_xml;
    assert_eq!(Domain::parse(&xml).unwrap(), want);

    let mut other = want.clone();
    other.memory_kib *= 2;
    other.disks[0].read_only = true;
    other.interfaces.clear();
    libvirt.define(other.edit(&xml).unwrap()).await.unwrap();
    let xml = libvirt.domain(&want.uuid).await.unwrap().unwrap().inactive_xml;
    assert_eq!(Domain::parse(&xml).unwrap(), other);
    libvirt.undefine(&want.uuid).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_is_written_read_and_taken_off_whether_the_domain_runs_or_not() {
    use libvirt_xml::mark::{NAMESPACE, PREFIX};
    let (libvirt, _events) = start().await;
    let want = domain(3);
    libvirt.define(want.render().unwrap()).await.unwrap();
    for running in [false, true] {
        if running {
            libvirt.create(&want.uuid).await.unwrap();
        }
        let mark = Mark { run: Run::Started, restarted_at: Some("x & \"y\"".into()), ..want.mark.clone().unwrap() };
        libvirt.set_metadata(&want.uuid, NAMESPACE, PREFIX, Some(mark.element().unwrap())).await.unwrap();
        let read = libvirt.glance(&want.uuid, NAMESPACE).await.unwrap().unwrap().1.unwrap();
        assert_eq!(Mark::parse(&read, &want.uuid).unwrap(), mark);
        let all = libvirt.domains_with(NAMESPACE).await.unwrap();
        let listed = all.into_iter().find(|(domain, _)| domain.uuid == want.uuid).unwrap();
        assert_eq!((listed.0.id.is_some(), listed.1), (running, Some(read)));
        let detail = libvirt.domain(&want.uuid).await.unwrap().unwrap();
        assert_eq!(Domain::parse(&detail.inactive_xml).unwrap().mark, Some(mark));
    }
    libvirt.set_metadata(&want.uuid, NAMESPACE, PREFIX, None).await.unwrap();
    assert_eq!(libvirt.glance(&want.uuid, NAMESPACE).await.unwrap().unwrap().1, None);
    libvirt.destroy(&want.uuid).await.unwrap();
    libvirt.undefine(&want.uuid).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_says_what_can_be_done_about_it() {
    let (libvirt, _events) = start().await;
    let nobody = "00000000-0000-4000-8000-00000000ffff";
    assert_eq!(libvirt.create(nobody).await.unwrap_err().kind, Kind::NotFound);
    assert_eq!(libvirt.define("<domain/>".into()).await.unwrap_err().kind, Kind::Invalid);
    assert_eq!(libvirt.domain_named("nul\0byte").await.unwrap_err().kind, Kind::Invalid);

    let want = domain(4);
    libvirt.define(want.render().unwrap()).await.unwrap();
    assert_eq!(libvirt.destroy(&want.uuid).await.unwrap_err().kind, Kind::WrongState);
    let clash = Domain { uuid: nobody.into(), ..want.clone() };
    assert_eq!(libvirt.define(clash.render().unwrap()).await.unwrap_err().kind, Kind::Exists);
    libvirt.undefine(&want.uuid).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_is_defined_started_stopped_and_undefined() {
    let (libvirt, mut events) = start().await;
    let uuid = "00000000-0000-4000-8000-0000000000a1";
    let pool = Pool { name: "images".into(), uuid: uuid.into(), kind: "dir".into(), path: "/srv/images".into() };
    libvirt.define_pool(pool.render().unwrap()).await.unwrap();
    libvirt.start_pool(uuid).await.unwrap();
    libvirt.set_pool_autostart(uuid, true).await.unwrap();
    let seen = libvirt.pool("images").await.unwrap().unwrap();
    assert_eq!(Pool::parse(&seen.xml).unwrap(), pool);
    assert!(seen.summary.active && seen.summary.autostart);
    let told = async { while events.recv().await != Some(Event::Pool("images".into())) {} };
    within(told).await;
    libvirt.stop_pool(uuid).await.unwrap();
    libvirt.undefine_pool(uuid).await.unwrap();
    assert_eq!(libvirt.pool("images").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_libvirt_gives_an_error_and_goes_on_trying() {
    let (libvirt, _events) = Libvirt::start(Settings::new("qemu:///system?socket=/nonexistent/libvirt-sock")).unwrap();
    assert_eq!(libvirt.domains().await.unwrap_err().kind, Kind::Gone);
    let mut link = libvirt.link();
    let said =
        within(link.wait_for(|link| matches!(link, libvirt::Link::Down(why) if why.contains("/nonexistent")))).await;
    assert!(said.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_taken_claimed_and_deleted() {
    let (libvirt, _events) = start().await;
    let want = domain(5);
    let uuid = want.uuid.as_str();
    libvirt.define(want.render().unwrap()).await.unwrap();
    assert_eq!(libvirt.snapshots(uuid).await.unwrap(), Some(vec![]));
    let request = |name: &str| Request {
        name: name.into(),
        uid: format!("uid-{name}"),
        disks: vec![RequestedDisk { target: "vda".into(), part: Part::Internal }],
    };
    for name in ["one", "two"] {
        libvirt.take_snapshot(uuid, request(name).render().unwrap(), Take::Internal).await.unwrap();
    }
    assert_eq!(libvirt.snapshot_counts().await.unwrap().get(uuid), Some(&2));
    let detail = libvirt.domain(uuid).await.unwrap().unwrap();
    assert_eq!((detail.snapshots, detail.current_snapshot.as_deref()), (2, Some("two")));

    let all = libvirt.snapshots(uuid).await.unwrap().unwrap();
    let two = all.iter().find(|snapshot| snapshot.name == "two").unwrap();
    let seen = Snapshot::parse(&two.xml).unwrap();
    assert_eq!((seen.uid.as_deref(), seen.parent.as_deref(), two.current), (Some("uid-two"), Some("one"), true));
    assert!(seen.places.iter().all(|place| *place == Place::Internal), "{seen:?}");

    libvirt.redefine_snapshot(uuid, snapshot::claimed(&two.xml, Some("new")).unwrap(), true).await.unwrap();
    let all = libvirt.snapshots(uuid).await.unwrap().unwrap();
    let two = all.iter().find(|snapshot| snapshot.name == "two").unwrap();
    assert_eq!(Snapshot::parse(&two.xml).unwrap().uid.as_deref(), Some("new"));
    assert!(two.current && all.len() == 2);

    libvirt.delete_snapshot(uuid, "one").await.unwrap();
    libvirt.delete_snapshot(uuid, "one").await.unwrap();
    assert_eq!(libvirt.domain(uuid).await.unwrap().unwrap().snapshots, 1);
    libvirt.undefine(uuid).await.unwrap();
    assert_eq!(libvirt.snapshots(uuid).await.unwrap(), None);
}
