//! libvirt-xml
