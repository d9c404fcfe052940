#![allow(clippy::unwrap_used)]
use super::*;
use serde_json::{Value, json};

fn vm(spec: Value) -> VirtualMachine {
    let mut whole = json!({"cpu": {}, "memory": {"size": "64Mi"}});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({"apiVersion": "virtfleet.dev/v1alpha1", "kind": "VirtualMachine",
        "metadata": {"name": "web", "namespace": "shop", "uid": "u"}, "spec": whole}))
    .unwrap()
}

fn ready(format: Format, shared: bool, claimed: bool) -> Volume {
    Volume::Ready { path: "/p/v".into(), format, shared, claimed, differs: Vec::new() }
}

fn resolved(volume: Option<Volume>) -> Resolved {
    Resolved {
        volumes: volume.map(|volume| ("v".to_owned(), volume)).into_iter().collect(),
        cluster: "c".into(),
        arch: "x86_64".into(),
        kvm: false,
        force_emulation: false,
        console_log_dir: "/log".into(),
    }
}

fn disk(read_only: bool) -> VirtualMachine {
    vm(json!({"disks": [{"name": "a", "volume": "v", "readOnly": read_only}]}))
}

#[test]
fn a_disk_is_written_only_by_the_machine_that_holds_the_claim() {
    let waits = |machine: &VirtualMachine, volume| validate(machine, &resolved(Some(volume))).unwrap().shape.is_err();
    assert!(waits(&disk(false), ready(Format::Raw, false, false)));
    assert!(!waits(&disk(false), ready(Format::Raw, false, true)));
    assert!(!waits(&disk(true), ready(Format::Raw, false, false)));
}

#[test]
fn what_is_missing_is_waited_for_by_name() {
    let none = validate(&disk(false), &resolved(None)).unwrap().shape.unwrap_err();
    assert_eq!(none.to_string(), "volume v: there is no StorageVolume of this name");
    let coming = validate(&disk(false), &resolved(Some(Volume::NotReady("it is coming".into()))));
    assert_eq!(coming.unwrap().shape.unwrap_err().to_string(), "volume v: it is coming");
}

#[test]
fn libvirt_starts_nothing_by_itself_that_writes_to_what_another_host_may_have() {
    for (read_only, shared, autostart) in [(false, false, true), (false, true, false), (true, true, true)] {
        let volume = ready(Format::Raw, shared, true);
        let wanted = validate(&disk(read_only), &resolved(Some(volume))).unwrap();
        assert_eq!(wanted.autostart, autostart, "read only {read_only}, shared {shared}");
    }
    assert!(!validate(&vm(json!({"autostart": false})), &resolved(None)).unwrap().autostart);
}

#[test]
fn what_no_wait_would_mend_names_its_field() {
    let boot = vm(json!({"kernelBoot": {"kernel": {"volume": "v"}}}));
    let mut dotted = vm(json!({}));
    dotted.metadata.name = Some("a.b".into());
    for (machine, field, reason) in [
        (boot, "spec.kernelBoot.kernel", "WrongFormat"),
        (vm(json!({"accelerator": "KVM"})), "spec.accelerator", "AccelerationUnavailable"),
        (vm(json!({"memory": {"size": "much"}})), "spec.memory.size", "InvalidQuantity"),
        (dotted, "metadata.name", "InvalidName"),
    ] {
        let invalid = validate(&machine, &resolved(Some(ready(Format::Qcow2, false, true)))).unwrap_err();
        assert_eq!((invalid.field, invalid.reason), (field, reason));
    }
}

#[test]
fn a_host_whose_administrator_forces_emulation_emulates_what_asks_for_kvm() {
    let forced = Resolved { kvm: true, force_emulation: true, ..resolved(None) };
    let shape = validate(&vm(json!({"accelerator": "KVM"})), &forced).unwrap().shape.unwrap();
    assert_eq!(shape.accelerator, Accelerator::Emulation);
    let free = Resolved { kvm: true, ..resolved(None) };
    assert_eq!(validate(&vm(json!({})), &free).unwrap().shape.unwrap().accelerator, Accelerator::Kvm);
}
