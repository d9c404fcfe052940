//! Certificates and keys of a run, made as it starts. Does I/O.

use crate::run::Run;
use crate::{HOSTS, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use std::fs;

/// Makes the authority, the API server's certificate, the key of service accounts, the API server's own towards
/// kubelets, and a kubeconfig for the administrator and each of the cluster's programs.
///
/// # Errors
/// When a certificate or file cannot be made.
pub fn make(run: &Run) -> Result<()> {
    let (authority, issuer) = authority("virtfleet bed")?;
    let pki = run.dir.join("pki");
    fs::write(pki.join("ca.crt"), &authority)?;

    let names = [run.address().to_string(), "10.96.0.1".into(), "kubernetes.default.svc".into()];
    let mut server = CertificateParams::new(names)?;
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    fs::write(pki.join("server.crt"), server.signed_by(&key, &issuer)?.pem())?;
    fs::write(pki.join("server.key"), key.serialize_pem())?;
    let accounts = KeyPair::generate()?;
    fs::write(pki.join("service-accounts.key"), accounts.serialize_pem())?;
    fs::write(pki.join("service-accounts.pub"), accounts.public_key_pem())?;

    let client = |user: &str, group: &str| -> Result<(String, String)> {
        let mut client = CertificateParams::new(Vec::new())?;
        client.distinguished_name.push(DnType::CommonName, user);
        client.distinguished_name.push(DnType::OrganizationName, group);
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        Ok((client.signed_by(&key, &issuer)?.pem(), key.serialize_pem()))
    };
    let (certificate, key) = client("kube-apiserver", "system:masters")?;
    fs::write(pki.join("kubelet-client.crt"), certificate)?;
    fs::write(pki.join("kubelet-client.key"), key)?;
    let node = format!("system:node:{}", HOSTS[0]);
    for (file, user, group) in [
        ("admin", "admin", "system:masters"),
        ("kube-scheduler", "system:kube-scheduler", "system:kube-scheduler"),
        ("kubelet", &node, "system:nodes"),
        ("kube-proxy", "system:kube-proxy", "system:node-proxier"),
        // Last: who waits for the certificates waits for this one.
        ("kube-controller-manager", "system:kube-controller-manager", "system:kube-controller-manager"),
    ] {
        let (certificate, key) = client(user, group)?;
        write_kubeconfig(
            run,
            file,
            &serde_json::json!({"client-certificate-data": base64(&certificate), "client-key-data": base64(&key)}),
        )?;
    }
    Ok(())
}

/// A new authority: its certificate (PEM), and who signs with its key.
///
/// # Errors
/// When it cannot be made.
pub fn authority(name: &str) -> Result<(String, Issuer<'static, KeyPair>)> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params.distinguished_name.push(DnType::CommonName, name);
    let certificate = params.self_signed(&key)?.pem();
    Ok((certificate, Issuer::new(params, key)))
}

/// Writes a kubeconfig for a token that lies in a file beside it, so that it can be renewed.
///
/// # Errors
/// When it cannot be written.
pub fn write_token_kubeconfig(run: &Run, who: &str, token: &str) -> Result<()> {
    let file = run.dir.join("kube").join(format!("{who}.token"));
    fs::write(&file, token)?;
    write_kubeconfig(run, who, &serde_json::json!({"tokenFile": file}))
}

fn write_kubeconfig(run: &Run, who: &str, user: &serde_json::Value) -> Result<()> {
    let authority = fs::read_to_string(run.dir.join("pki/ca.crt"))?;
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "bed",
        "contexts": [{"name": "bed", "context": {"cluster": "bed", "user": who}}],
        "clusters": [{"name": "bed", "cluster": {"server": run.server(), "certificate-authority-data": base64(&authority)}}],
        "users": [{"name": who, "user": user}],
    });
    // The keeper starts what needs this file as soon as it is there: it must be whole.
    let file = run.kubeconfig(who);
    let part = file.with_extension("part");
    fs::write(&part, serde_json::to_string_pretty(&config)?)?;
    Ok(fs::rename(part, file)?)
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}
