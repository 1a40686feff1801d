//! The cluster's certificates and kubeconfigs, as kubeadm would lay them out.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use super::{API_PORT, API_SERVICE, Folder, NODE, NODE_NAME};

/// Who talks to the API server: file name, user, groups (the built-in roles of Kubernetes' RBAC name
/// them).
const CLIENTS: [(&str, &str, &str); 5] = [
    ("admin", "admin", "system:masters"),
    ("controller-manager", "system:kube-controller-manager", ""),
    ("scheduler", "system:kube-scheduler", ""),
    ("proxy", "system:kube-proxy", ""),
    ("kubelet", concat!("system:node:", "node"), "system:nodes"),
];

/// Makes all certificates, keys and kubeconfigs. `port` is where the API server answers outside, on
/// 127.0.0.1.
pub fn write(folder: &Folder, port: u16) -> Result<()> {
    let pki = folder.pki();
    fs::create_dir_all(&pki)?;
    let ca = Ca::new()?;
    file(&pki.join("ca.crt"), &ca.certificate)?;

    let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"];
    let addresses = [IpAddr::from([127, 0, 0, 1]), NODE.into(), API_SERVICE.into()];
    let server = ca.issue("kube-apiserver", "", &names, &addresses)?;
    file(&pki.join("apiserver.crt"), &server.certificate)?;
    file(&pki.join("apiserver.key"), &server.key)?;

    // The API server is the kubelet's client for logs and exec.
    let client = ca.issue("kube-apiserver-kubelet-client", "system:masters", &[], &[])?;
    file(&pki.join("kubelet-client.crt"), &client.certificate)?;
    file(&pki.join("kubelet-client.key"), &client.key)?;

    let kubelet = ca.issue(NODE_NAME, "", &[NODE_NAME], &[NODE.into()])?;
    file(&pki.join("kubelet.crt"), &kubelet.certificate)?;
    file(&pki.join("kubelet.key"), &kubelet.key)?;

    let key = KeyPair::generate()?;
    file(&pki.join("service-accounts.key"), &key.serialize_pem())?;
    file(&pki.join("service-accounts.pub"), &key.public_key_pem())?;

    for (name, user, group) in CLIENTS {
        let client = ca.issue(user, group, &[], &[])?;
        let inside = format!("https://{NODE}:{API_PORT}");
        file(&pki.join(format!("{name}.kubeconfig")), &ca.kubeconfig(&inside, &client))?;
        if name == "admin" {
            let outside = format!("https://127.0.0.1:{port}");
            file(&folder.kubeconfig(), &ca.kubeconfig(&outside, &client))?;
        }
    }
    Ok(())
}

struct Ca {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM.
struct Issued {
    certificate: String,
    key: String,
}

impl Ca {
    fn new() -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = params("sfunnel test cluster", "");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    fn issue(
        &self,
        user: &str,
        group: &str,
        names: &[&str],
        addresses: &[IpAddr],
    ) -> Result<Issued> {
        let key = KeyPair::generate()?;
        let mut params = params(user, group);
        for name in names {
            params.subject_alt_names.push(SanType::DnsName((*name).try_into()?));
        }
        params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued { certificate, key: key.serialize_pem() })
    }

    fn kubeconfig(&self, server: &str, client: &Issued) -> String {
        let encoded = |text: &str| BASE64_STANDARD.encode(text);
        format!(
            "apiVersion: v1\n\
             kind: Config\n\
             current-context: sfunnel\n\
             contexts:\n\
             - name: sfunnel\n  context: {{cluster: sfunnel, user: sfunnel}}\n\
             clusters:\n\
             - name: sfunnel\n  cluster:\n    server: {server}\n    certificate-authority-data: {}\n\
             users:\n\
             - name: sfunnel\n  user:\n    client-certificate-data: {}\n    client-key-data: {}\n",
            encoded(&self.certificate),
            encoded(&client.certificate),
            encoded(&client.key),
        )
    }
}

fn params(common_name: &str, organization: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    if !organization.is_empty() {
        params.distinguished_name.push(DnType::OrganizationName, organization);
    }
    params
}

/// Keys are among them, so nobody else may read any.
fn file(path: &Path, text: &str) -> Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    std::io::Write::write_all(&mut file, text.as_bytes())
        .with_context(|| format!("writing {}", path.display()))
}
