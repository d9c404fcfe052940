//! What is written is what is read, whatever users write; what others put into a domain survives; libvirt's own schema agrees.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use libvirt_xml::{
    Accelerator, Cpu, Disk, DiskFormat, Domain, Error, Interface, InterfaceKind, Kernel, Mark, Owner, Pool, Run, facts,
};
use proptest::prelude::*;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

fn disk(name: &str, target: &str) -> Disk {
    Disk {
        name: name.into(),
        file: format!("/pool/{name}.qcow2"),
        format: DiskFormat::Qcow2,
        target: target.into(),
        boot_order: None,
        read_only: false,
    }
}

fn domain() -> Domain {
    Domain {
        name: "shop.web".into(),
        uuid: "0a1b2c3d-4e5f-6789-abcd-ef0123456789".into(),
        mark: Some(Mark {
            domain: "0a1b2c3d-4e5f-6789-abcd-ef0123456789".into(),
            owner: Owner { cluster: "c".into(), namespace: "shop".into(), name: "web".into(), uid: "u".into() },
            run: Run::Stopping { since: "2026-01-01T00:00:00Z".parse().unwrap() },
            restarted_at: Some("1".into()),
            applied: None,
        }),
        accelerator: Accelerator::Emulation,
        machine: "q35".into(),
        arch: "x86_64".into(),
        memory_kib: 262_144,
        vcpus: 2,
        cpu: Cpu::HostModel,
        kernel: None,
        disks: vec![
            Disk { boot_order: Some(1), ..disk("root", "vda") },
            Disk { read_only: true, ..disk("data", "vdb") },
        ],
        interfaces: vec![Interface { name: "lan".into(), mac: "52:54:00:00:00:01".into(), kind: InterfaceKind::User }],
        console_log: Some("/log/shop.web.log".into()),
        guest_agent: true,
    }
}

fn booting(kernel: &str, command_line: &str) -> Domain {
    let kernel =
        Kernel { kernel: kernel.into(), initrd: Some("/pool/i".into()), command_line: Some(command_line.into()) };
    Domain { kernel: Some(kernel), ..domain() }
}

/// `virt-xml-validate` of libvirt's clients, on its own RelaxNG schemas.
fn check(xml: &str, schema: &str) {
    let child = Command::new("virt-xml-validate")
        .args(["-", schema])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.expect("virt-xml-validate is in package libvirt-clients");
    child.stdin.take().unwrap().write_all(xml.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{xml}", String::from_utf8_lossy(&output.stderr));
}

/// Names of all elements, in order.
fn shape(xml: &str) -> Vec<String> {
    let mut xot = xot::Xot::new();
    let document = xot.parse(xml).unwrap();
    let nodes: Vec<_> = xot.descendants(document).collect();
    nodes.into_iter().filter_map(|node| Some(xot.local_name_str(xot.element(node)?.name()).to_owned())).collect()
}

#[test]
fn a_domain_is_written_as_it_always_was() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/domain.xml");
    let written = domain().render().unwrap().replace("><", ">\n<") + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &written).unwrap();
    }
    assert_eq!(written, std::fs::read_to_string(file).unwrap(), "UPDATE_GOLDEN=1 writes it anew");
}

#[test]
fn a_disk_is_taken_out_as_it_stands_and_with_or_without_its_place() {
    let placed = domain().render().unwrap().replacen("<alias", "<address type='pci' slot='0x01'/><alias", 1);
    let as_defined = libvirt_xml::disk_device(&placed, "root", libvirt_xml::Address::AsDefined).unwrap();
    assert!(as_defined.starts_with("<disk ") && as_defined.contains("/pool/root") && as_defined.contains("slot"));
    let free = libvirt_xml::disk_device(&placed, "root", libvirt_xml::Address::Free).unwrap();
    assert!(free.contains("ua-disk-root") && !free.contains("slot"));
    assert!(libvirt_xml::disk_device(&placed, "nobody", libvirt_xml::Address::Free).is_err());
}

#[test]
fn a_chain_is_read_with_what_lies_below() {
    let xml = "<domain><devices><disk><source file='/top'/><backingStore type='file'><source file='/base'/><backingStore/>\
               </backingStore><target dev='vda'/></disk></devices></domain>";
    let disk = &facts(xml).unwrap().disks[0];
    assert_eq!((disk.file.as_str(), disk.below.as_slice()), ("/top", ["/base".to_owned()].as_slice()));
}

#[test]
fn libvirts_schema_takes_every_shape_that_we_write() {
    let bare =
        Domain { disks: vec![], interfaces: vec![], console_log: None, guest_agent: false, mark: None, ..domain() };
    let named = |cpu| Domain { cpu, ..domain() };
    for domain in [
        domain(),
        bare,
        booting("/pool/k", "console=ttyS0 a=\"b\" <&>"),
        named(Cpu::HostPassthrough),
        named(Cpu::Maximum),
        named(Cpu::Named("Skylake-Server".into())),
        Domain { accelerator: Accelerator::Kvm, ..domain() },
    ] {
        check(&domain.render().unwrap(), "domain");
    }
    let pool = Pool { name: "images".into(), uuid: domain().uuid, kind: "dir".into(), path: "/var/lib/x".into() };
    check(&pool.render().unwrap(), "storagepool");
    assert_eq!(Pool::parse(&pool.render().unwrap()).unwrap(), pool);
}

#[test]
fn what_others_put_into_a_domain_survives_our_edits() {
    let theirs = [
        "<qemu:commandline xmlns:qemu=\"http://libvirt.org/schemas/domain/qemu/1.0\"><qemu:arg value=\"-foo\"/></qemu:commandline>",
        "<hostdev mode=\"subsystem\" type=\"usb\"><source><vendor id=\"0x1\"/></source></hostdev>",
        "<disk type=\"file\" device=\"disk\"><source file=\"/their.img\"/><target dev=\"vdz\" bus=\"virtio\"/></disk>",
    ];
    let xml = domain().render().unwrap();
    let xml = xml
        .replace("</devices>", &format!("{}{}</devices>", theirs[1], theirs[2]))
        .replace("</domain>", &format!("{}</domain>", theirs[0]));
    let smaller =
        Domain { disks: vec![disk("data", "vdb")], interfaces: vec![], vcpus: 1, guest_agent: false, ..domain() };
    let edited = smaller.edit(&xml).unwrap();
    for part in theirs {
        assert!(edited.contains(part), "{part}\n{edited}");
    }
    assert_eq!(Domain::parse(&edited).unwrap(), smaller);
    assert_eq!(smaller.edit(&edited).unwrap(), edited, "the second edit changes nothing");
    let facts = facts(&edited).unwrap();
    assert!(facts.files.contains(&"/their.img".to_owned()) && facts.disks.iter().any(|disk| disk.target == "vdz"));
}

#[test]
fn a_document_that_declares_a_type_is_not_read() {
    for xml in
        ["<!DOCTYPE d [<!ENTITY a SYSTEM \"file:///etc/passwd\">]><domain>&a;</domain>", "", "<domain", "<a/><b/>"]
    {
        assert!(matches!(Domain::parse(xml), Err(Error::Unreadable(_))), "{xml}");
    }
}

/// Strings that users try, and any others.
fn nasty() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("\"><qemu:commandline>".to_owned()),
        Just("]]>".to_owned()),
        Just("<![CDATA[x]]>".to_owned()),
        Just("a\0b".to_owned()),
        Just("../../etc/passwd".to_owned()),
        Just("&lt;&#0;&amp;".to_owned()),
        Just("x".repeat(300)),
        any::<String>(),
        "[ -~]{0,40}",
    ]
}

proptest! {
    /// Whatever is in the texts: the elements are those of a tame domain, and what is read is what was written, or nothing is written.
    #[test]
    fn no_text_of_a_users_becomes_xml(name in nasty(), file in nasty(), line in nasty(), model in nasty(), restarted in nasty()) {
        let mut domain = booting(&file, &line);
        domain.name = name;
        domain.disks[0].file = file;
        domain.cpu = Cpu::Named(model);
        domain.mark.as_mut().unwrap().restarted_at = Some(restarted);
        match domain.render() {
            Err(Error::Unwritable(_)) => {}
            Err(other) => prop_assert!(false, "{other}"),
            Ok(xml) => {
                let empty = matches!(&domain.cpu, Cpu::Named(model) if model.is_empty());
                let tame = Domain { cpu: if empty { Cpu::Named(String::new()) } else { Cpu::Named("x".into()) }, ..booting("/k", "l") };
                let same = domain.kernel.as_ref().is_some_and(|kernel| !kernel.kernel.is_empty());
                if same {
                    prop_assert_eq!(shape(&xml), shape(&tame.render().unwrap()));
                }
                let read = Domain::parse(&xml).unwrap();
                // White space around a text is nobody's.
                prop_assert_eq!(read.name, domain.name.trim());
                prop_assert_eq!(&read.disks[0].file, &domain.disks[0].file);
                prop_assert_eq!(read.mark, domain.mark);
            }
        }
    }
}

#[test]
fn a_domain_goes_off_a_file_that_was_merged_and_keeps_all_else() {
    let xml = "<domain type='qemu'><name>a</name><devices>\
        <disk type='file'><driver name='qemu' type='qcow2'/><source file='/p/one'/>\
        <backingStore type='file'><format type='raw'/><source file='/p/base'/></backingStore><target dev='vda'/></disk>\
        <disk type='file'><driver name='qemu' type='qcow2'/><source file='/p/top'/>\
        <backingStore type='file'><source file='/p/two'/></backingStore><target dev='vdb'/></disk>\
        <disk type='file'><driver name='qemu' type='qcow2'/><source file='/p/other'/><target dev='vdc'/></disk></devices></domain>";
    let merged = |overlay: &str, below: &str| libvirt_xml::Merged {
        overlay: overlay.into(),
        below: below.into(),
        format: DiskFormat::Raw,
    };
    let all = [merged("/p/one", "/p/base"), merged("/p/two", "/p/base2")];
    let after = libvirt_xml::without_merged(xml, &all).unwrap().unwrap();
    assert!(
        after.contains(r#"<driver name="qemu" type="raw"/><source file="/p/base"/><target dev="vda"/>"#),
        "{after}"
    );
    assert!(after.contains(r#"type="qcow2"/><source file="/p/top"/><target dev="vdb"/>"#), "{after}");
    assert!(after.contains(r#"<source file="/p/other"/>"#) && !after.contains("backingStore"), "{after}");
    assert_eq!(libvirt_xml::without_merged(&after, &all).unwrap(), None);
}
