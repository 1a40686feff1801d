//! The command line. Every flag has an environment variable, `SFUNNEL_` and its name.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use certs::{Files, Name, Policy, PolicyError};
use clap::builder::{RangedU64ValueParser, Resettable};
use clap::{CommandFactory, FromArgMatches, Parser};
use tracing::level_filters::LevelFilter;

use crate::http::Admission;
use crate::log::Format;
use crate::serve::Options;
use crate::settings::{Settings, SettingsError};
use crate::tls::{DEFAULT_NAMES, Managed, Source};

/// Admission webhook that adds the init container sfunnel-loader to annotated pods, and checks the
/// annotations of workloads.
#[derive(Clone, Debug, Parser)]
#[command(name = "sfunnel-webhook", version)]
pub struct Args {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    serve: ServeArgs,

    /// The form of log lines.
    #[arg(long, env = "SFUNNEL_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: Format,

    /// The least important lines that are logged: error, warn, info, debug or trace.
    #[arg(long, env = "SFUNNEL_LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    pub log_level: LevelFilter,
}

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "TLS")]
struct TlsArgs {
    /// Namespace of --service and --ca-secret. [default: that of the service account]
    #[arg(long, env = "SFUNNEL_NAMESPACE", value_name = "NAME", value_parser = label)]
    namespace: Option<String>,

    /// Service by which API servers call. The certificate is good for it. [default: sfunnel-webhook]
    #[arg(long, env = "SFUNNEL_SERVICE", value_name = "NAME", value_parser = label)]
    service: Option<String>,

    /// Secret with the CA that replicas share. It is made when it isn't there.
    /// [default: sfunnel-webhook-ca]
    #[arg(long, env = "SFUNNEL_CA_SECRET", value_name = "NAME", value_parser = subdomain)]
    ca_secret: Option<String>,

    /// MutatingWebhookConfiguration in which the CA is published, and ValidatingWebhookConfiguration of
    /// the same name. [default: sfunnel-webhook]
    #[arg(long, env = "SFUNNEL_WEBHOOK_CONFIGURATION", value_name = "NAME", value_parser = subdomain)]
    webhook_configuration: Option<String>,

    /// Seconds that a CA lives; the next one is made after two thirds of them. [default: 31536000]
    #[arg(long, env = "SFUNNEL_CA_LIFETIME", value_name = "SECONDS", value_parser = in_range(60, MAX_LIFETIME))]
    ca_lifetime: Option<u64>,

    /// Seconds that a certificate lives; it is renewed after two thirds of them. [default: 604800]
    #[arg(long, env = "SFUNNEL_CERTIFICATE_LIFETIME", value_name = "SECONDS", value_parser = in_range(15, MAX_LIFETIME))]
    certificate_lifetime: Option<u64>,

    /// Seconds that the next CA is published before it signs, less than a sixth of --ca-lifetime. API
    /// servers have to hear of it meanwhile. [default: 3600]
    #[arg(long, env = "SFUNNEL_CA_OVERLAP", value_name = "SECONDS", value_parser = in_range(1, MAX_LIFETIME))]
    ca_overlap: Option<u64>,

    /// PEM file with the server's certificate, and those of its issuers after it, instead of a CA that
    /// replicas share. It is read again when it changes.
    #[arg(long, env = "SFUNNEL_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,

    /// PEM file with the key of --tls-cert.
    #[arg(long, env = "SFUNNEL_TLS_KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,

    /// Use a certificate of a CA that this process makes at start and shares with nobody.
    #[arg(long, env = "SFUNNEL_SELF_SIGNED")]
    self_signed: bool,

    /// DNS name or IP address that the self-signed certificate is good for. Repeat it, or separate
    /// names by commas. [default: sfunnel-webhook.sfunnel-system.svc,localhost,127.0.0.1]
    #[arg(long, env = "SFUNNEL_SELF_SIGNED_NAME", value_name = "NAME", value_delimiter = ',', value_parser = name)]
    self_signed_name: Vec<Name>,

    /// File to which the CA certificate of --self-signed is written, for clients to trust.
    #[arg(long, env = "SFUNNEL_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

/// Ten years, in seconds.
const MAX_LIFETIME: u64 = 315_360_000;

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Server")]
struct ServeArgs {
    /// Address of the TLS port, where POST /mutate and /validate are answered. Port 0 picks a free one.
    #[arg(long, env = "SFUNNEL_LISTEN", value_name = "ADDRESS", default_value = "0.0.0.0:8443")]
    listen: SocketAddr,

    /// Address of the plain port, where /healthz, /readyz and /metrics are answered. Port 0 picks a free
    /// one.
    #[arg(
        long,
        env = "SFUNNEL_HEALTH_LISTEN",
        value_name = "ADDRESS",
        default_value = "0.0.0.0:8080"
    )]
    health_listen: SocketAddr,

    /// Bytes of a request's body, at the most.
    #[arg(long, env = "SFUNNEL_MAX_BODY_BYTES", value_name = "BYTES", default_value_t = 4 << 20, value_parser = in_range(64 << 10, 64 << 20))]
    max_body_bytes: u64,

    /// Reviews of more than 16 KiB, or with more than 512 bytes of rulesets, that are decided at the same
    /// time, at the most. More wait a little, and are then answered with 503. The largest rulesets take up
    /// to 125 MB while they are compiled. As many bodies of --max-body-bytes may be there at once.
    #[arg(long, env = "SFUNNEL_MAX_CONCURRENT_REVIEWS", value_name = "COUNT", default_value_t = 16, value_parser = in_range(1, 512))]
    max_concurrent_reviews: u64,

    /// Connections to the TLS port, at the most. For one more, the one ends that has kept the server waiting
    /// longest.
    #[arg(long, env = "SFUNNEL_MAX_CONNECTIONS", value_name = "COUNT", default_value_t = 4096, value_parser = in_range(1, 1 << 14))]
    max_connections: u64,

    /// Seconds for a TLS handshake.
    #[arg(long, env = "SFUNNEL_HANDSHAKE_TIMEOUT", value_name = "SECONDS", default_value_t = 10, value_parser = in_range(1, 300))]
    handshake_timeout: u64,

    /// Seconds for a request's header, of which the first is counted from the TLS handshake.
    #[arg(long, env = "SFUNNEL_HEADER_TIMEOUT", value_name = "SECONDS", default_value_t = 10, value_parser = in_range(1, 300))]
    header_timeout: u64,

    /// Seconds for a request's body, at the most. API servers say how long they wait for the answer, and
    /// hear in that time what is wrong.
    #[arg(long, env = "SFUNNEL_BODY_TIMEOUT", value_name = "SECONDS", default_value_t = 4, value_parser = in_range(1, 300))]
    body_timeout: u64,

    /// Seconds from SIGTERM, or from the last connection that came after it, until no more connections are
    /// accepted. /readyz fails meanwhile.
    #[arg(long, env = "SFUNNEL_DRAIN_DELAY", value_name = "SECONDS", default_value_t = 5, value_parser = in_range(0, 300))]
    drain_delay: u64,

    /// Seconds, after those of --drain-delay, for requests in flight. If connections still come, they are
    /// accepted for half of it. Together with --drain-delay it should stay below the pod's
    /// terminationGracePeriodSeconds.
    #[arg(long, env = "SFUNNEL_SHUTDOWN_TIMEOUT", value_name = "SECONDS", default_value_t = 20, value_parser = in_range(0, 300))]
    shutdown_timeout: u64,
}

/// Flags that make no sense together.
#[derive(Debug, thiserror::Error)]
pub enum ArgsError {
    /// One file without the other.
    #[error("{given} needs {missing} as well")]
    HalfPair {
        /// The flag that is there.
        given: &'static str,
        /// The flag that is not.
        missing: &'static str,
    },
    /// Two certificates.
    #[error("--self-signed and --tls-cert exclude each other; give one of them")]
    TwoCertificates,
    /// A flag that only --self-signed reads.
    #[error("{0} does nothing without --self-signed")]
    OnlySelfSigned(&'static str),
    /// A flag of the CA that replicas share.
    #[error("{flag} does nothing with {with}")]
    OnlyManaged {
        /// The flag.
        flag: &'static str,
        /// The flag that chooses another certificate.
        with: &'static str,
    },
    /// Lifetimes that contradict each other.
    #[error("{0} (--ca-lifetime, --certificate-lifetime, --ca-overlap)")]
    Policy(#[from] PolicyError),
    /// Both ports are one.
    #[error("--listen and --health-listen are both {0}; give them different ports")]
    SamePort(SocketAddr),
    /// The loader's settings contradict each other.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

/// A command line that makes sense.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the certificate comes from.
    pub tls: Source,
    /// What is served.
    pub admission: Admission,
    /// How it is served.
    pub options: Options,
}

impl Args {
    /// Reads the command line and the environment. Ends the process when they can't be read, or help
    /// is wanted.
    ///
    /// A variable that is set to nothing counts as not set, as it does for the loader: manifests leave
    /// variables empty.
    pub fn read() -> Self {
        let empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
        let command = Self::command().mut_args(|arg| match arg.get_env() {
            Some(name) if empty(name) => arg.env(Resettable::Reset),
            _ => arg,
        });
        Self::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
    }

    /// Checks what no flag shows by itself.
    ///
    /// # Errors
    ///
    /// The flags that contradict each other, or are missing.
    pub fn config(self) -> Result<Config, ArgsError> {
        self.settings.check()?;
        let Self { settings, tls, serve, .. } = self;
        if serve.listen == serve.health_listen && serve.listen.port() != 0 {
            return Err(ArgsError::SamePort(serve.listen));
        }
        Ok(Config {
            tls: tls.source()?,
            admission: Admission {
                settings,
                max_body: serve.max_body_bytes as usize,
                body_timeout: Duration::from_secs(serve.body_timeout),
                max_reviews: serve.max_concurrent_reviews as usize,
            },
            options: Options {
                listen: serve.listen,
                health_listen: serve.health_listen,
                max_connections: serve.max_connections as usize,
                handshake_timeout: Duration::from_secs(serve.handshake_timeout),
                header_timeout: Duration::from_secs(serve.header_timeout),
                drain_delay: Duration::from_secs(serve.drain_delay),
                shutdown_timeout: Duration::from_secs(serve.shutdown_timeout),
            },
        })
    }
}

impl TlsArgs {
    fn source(self) -> Result<Source, ArgsError> {
        let half = |given, missing| Err(ArgsError::HalfPair { given, missing });
        match (&self.tls_cert, &self.tls_key, self.self_signed) {
            (None, None, false) => {
                self.refuse_self_signed()?;
                Ok(Source::Managed(self.managed()?))
            }
            (None, None, true) => {
                self.refuse_managed("--self-signed")?;
                let names = match self.self_signed_name {
                    names if names.is_empty() => DEFAULT_NAMES.into_iter().flat_map(name).collect(),
                    names => names,
                };
                Ok(Source::SelfSigned { names, ca_file: self.ca_file })
            }
            (_, _, true) => Err(ArgsError::TwoCertificates),
            (Some(_), None, false) => half("--tls-cert", "--tls-key"),
            (None, Some(_), false) => half("--tls-key", "--tls-cert"),
            (Some(certificate), Some(key), false) => {
                self.refuse_self_signed()?;
                self.refuse_managed("--tls-cert")?;
                Ok(Source::Files(Files { certificate: certificate.clone(), key: key.clone() }))
            }
        }
    }

    fn managed(self) -> Result<Managed, ArgsError> {
        let name = |name: Option<String>, default: &str| name.unwrap_or(default.to_owned());
        let seconds = |seconds: Option<u64>, default| {
            // The range of the flags fits.
            time::Duration::seconds(seconds.unwrap_or(default) as i64)
        };
        Ok(Managed {
            namespace: self.namespace,
            service: name(self.service, "sfunnel-webhook"),
            secret: name(self.ca_secret, "sfunnel-webhook-ca"),
            configuration: name(self.webhook_configuration, "sfunnel-webhook"),
            policy: Policy::new(
                seconds(self.ca_lifetime, 31_536_000),
                seconds(self.certificate_lifetime, 604_800),
                seconds(self.ca_overlap, 3_600),
            )?,
        })
    }

    fn refuse_managed(&self, with: &'static str) -> Result<(), ArgsError> {
        let given = [
            ("--namespace", self.namespace.is_some()),
            ("--service", self.service.is_some()),
            ("--ca-secret", self.ca_secret.is_some()),
            ("--webhook-configuration", self.webhook_configuration.is_some()),
            ("--ca-lifetime", self.ca_lifetime.is_some()),
            ("--certificate-lifetime", self.certificate_lifetime.is_some()),
            ("--ca-overlap", self.ca_overlap.is_some()),
        ];
        match first(&given) {
            Some(flag) => Err(ArgsError::OnlyManaged { flag, with }),
            None => Ok(()),
        }
    }

    fn refuse_self_signed(&self) -> Result<(), ArgsError> {
        let given = [
            ("--ca-file", self.ca_file.is_some()),
            ("--self-signed-name", !self.self_signed_name.is_empty()),
        ];
        first(&given).map_or(Ok(()), |flag| Err(ArgsError::OnlySelfSigned(flag)))
    }
}

/// The first flag that is given.
fn first(flags: &[(&'static str, bool)]) -> Option<&'static str> {
    flags.iter().find(|(_, given)| *given).map(|(flag, _)| *flag)
}

/// A name of a namespace or a Service (RFC 1123, section 2.1).
fn label(text: &str) -> Result<String, String> {
    match text.len() <= 63 && is_label(text) {
        true => Ok(text.to_owned()),
        false => Err("not 1 to 63 lower case letters, digits and `-` in between".to_owned()),
    }
}

/// A name of any other object
/// (<https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>).
fn subdomain(text: &str) -> Result<String, String> {
    match text.len() <= 253 && text.split('.').all(is_label) {
        true => Ok(text.to_owned()),
        false => {
            Err("not 1 to 253 lower case letters, digits, and `-` and `.` in between".to_owned())
        }
    }
}

fn is_label(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.chars().all(|c| alphanumeric(c) || c == '-')
        && text.starts_with(alphanumeric)
        && text.ends_with(alphanumeric)
}

fn name(text: &str) -> Result<Name, String> {
    Name::try_from(text.to_owned()).map_err(|_| "neither a DNS name nor an IP address".to_owned())
}

fn in_range(min: u64, max: u64) -> RangedU64ValueParser {
    RangedU64ValueParser::new().range(min..=max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(flags: &[&str]) -> Result<Config, String> {
        let flags = ["sfunnel-webhook", "--loader-image", "loader:1"].iter().chain(flags);
        let args = Args::try_parse_from(flags).map_err(|error| error.to_string())?;
        args.config().map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_flag_has_its_variable() {
        for arg in Args::command().get_arguments() {
            let flag = arg.get_long().unwrap();
            let variable = format!("SFUNNEL_{}", flag.replace('-', "_").to_uppercase());
            assert_eq!(arg.get_env().unwrap(), variable.as_str(), "--{flag}");
        }
    }

    #[test]
    fn self_signed_has_default_names() {
        let Source::SelfSigned { names, ca_file } = config(&["--self-signed"]).unwrap().tls else {
            panic!("not self-signed")
        };
        let names: Vec<_> = names.iter().map(|name| name.to_str()).collect();
        assert_eq!(names, DEFAULT_NAMES);
        assert_eq!(ca_file, None);
    }

    #[test]
    fn without_a_certificate_replicas_share_a_ca() {
        let Source::Managed(managed) = config(&[]).unwrap().tls else { panic!("not managed") };
        assert_eq!(managed.namespace, None);
        assert_eq!(managed.service, "sfunnel-webhook");
        assert_eq!(managed.secret, "sfunnel-webhook-ca");
        assert_eq!(managed.configuration, "sfunnel-webhook");
        let policy = managed.policy;
        assert_eq!(policy.ca_lifetime(), time::Duration::days(365));
        assert_eq!(policy.certificate_lifetime(), time::Duration::days(7));
        assert_eq!(policy.ca_overlap(), time::Duration::hours(1));

        let shortest = ["--ca-lifetime=60", "--certificate-lifetime=15", "--ca-overlap=5"];
        let names =
            ["--namespace=n", "--service=s", "--ca-secret=c.1", "--webhook-configuration=w"];
        let flags: Vec<_> = shortest.into_iter().chain(names).collect();
        let Source::Managed(managed) = config(&flags).unwrap().tls else { panic!("not managed") };
        assert_eq!(managed.namespace.as_deref(), Some("n"));
        assert_eq!([managed.service, managed.secret, managed.configuration], ["s", "c.1", "w"]);
        assert_eq!(managed.policy.ca_overlap(), time::Duration::seconds(5));
    }

    #[test]
    fn nonsense_is_refused() {
        let check = |flags: &[&str], expect: &str| assert_eq!(config(flags).unwrap_err(), expect);
        check(&["--tls-cert", "a"], "--tls-cert needs --tls-key as well");
        check(&["--tls-key", "a"], "--tls-key needs --tls-cert as well");
        check(
            &["--tls-cert", "a", "--tls-key", "b", "--self-signed"],
            "--self-signed and --tls-cert exclude each other; give one of them",
        );
        check(
            &["--tls-cert", "a", "--tls-key", "b", "--ca-file", "c"],
            "--ca-file does nothing without --self-signed",
        );
        check(
            &["--tls-cert", "a", "--tls-key", "b", "--self-signed-name", "c"],
            "--self-signed-name does nothing without --self-signed",
        );
        check(
            &["--self-signed-name", "c"],
            "--self-signed-name does nothing without --self-signed",
        );
        for flag in ["--namespace", "--service", "--ca-secret", "--webhook-configuration"] {
            let files = ["--tls-cert", "a", "--tls-key", "b", flag, "c"];
            check(&files, &format!("{flag} does nothing with --tls-cert"));
            let self_signed = ["--self-signed", flag, "c"];
            check(&self_signed, &format!("{flag} does nothing with --self-signed"));
        }
        for flag in ["--ca-lifetime", "--certificate-lifetime", "--ca-overlap"] {
            let flags = ["--self-signed", flag, "60"];
            check(&flags, &format!("{flag} does nothing with --self-signed"));
        }
        check(
            &["--ca-lifetime", "21600", "--certificate-lifetime", "60"],
            "the overlap of CAs has to be shorter than a sixth of a CA's life (--ca-lifetime, --certificate-lifetime, --ca-overlap)",
        );
        check(
            &["--certificate-lifetime", "31536000"],
            "a certificate may live half as long as a CA at the most (--ca-lifetime, --certificate-lifetime, --ca-overlap)",
        );
        check(
            &["--self-signed", "--listen", "[::1]:1", "--health-listen", "[::1]:1"],
            "--listen and --health-listen are both [::1]:1; give them different ports",
        );
        for (flag, value) in [
            ("--max-body-bytes", "1"),
            ("--handshake-timeout", "0"),
            ("--max-connections", "0"),
            ("--max-concurrent-reviews", "0"),
            ("--self-signed-name", "not a name"),
            ("--listen", "8443"),
            ("--namespace", "a.b"),
            ("--service", "a-"),
            ("--ca-secret", "a..b"),
            ("--webhook-configuration", "A"),
            ("--ca-lifetime", "59"),
            ("--certificate-lifetime", "14"),
            ("--ca-overlap", "0"),
        ] {
            let error = config(&["--self-signed", flag, value]).unwrap_err();
            assert!(error.contains(flag), "{error}");
        }
    }
}
