//! Words that stand for a value: protocols, ports, addresses.

use std::net::{IpAddr, Ipv4Addr};

use super::Error;
use super::words::similar;
use crate::ast::{Cidr, Family, Port, PortRange, Protocol, TcpFlags, family_of, longest_prefix};
use crate::diagnostic::Kind;
use crate::lexer::Span;

/// `tcp` or `udp`.
pub(super) fn protocol(word: &str, span: Span) -> Result<Protocol, Error> {
    match word {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        _ => Err((Kind::NotAProtocol(word.to_owned()), span)),
    }
}

/// A port or a range of them.
pub(super) fn port_range(word: &str, span: Span) -> Result<PortRange, Error> {
    let bad = || (Kind::BadPort(word.to_owned()), span.clone());
    let port = |digits: &str| {
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        let number: u16 = digits.parse().map_err(|_| bad())?;
        Port::new(number).ok_or((Kind::PortZero, span.clone()))
    };
    let (first, last) = match word.split_once('-') {
        None => (port(word)?, port(word)?),
        Some((first, last)) => (port(first)?, port(last)?),
    };
    if last < first {
        return Err((Kind::RangeReversed(first.get(), last.get()), span));
    }
    Ok(PortRange { first, last })
}

/// An address or a network of `family`, or of either one if it is not known: with a prefix length,
/// or as in the original an IPv4 network with a netmask.
pub(super) fn cidr(word: &str, span: Span, family: Option<Family>) -> Result<Cidr, Error> {
    let (network, prefix) = match word.split_once('/') {
        None => (word, None),
        Some((network, prefix)) => (network, Some(prefix)),
    };
    let network = address(network, span.clone(), family)?;
    let family = family_of(network);
    let prefix_bits = match prefix {
        None => Some(longest_prefix(family)),
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok(),
        Some(mask) if family == Family::Ip => mask.parse().ok().and_then(netmask_bits),
        Some(_) => None,
    };
    prefix_bits
        .and_then(|bits| Cidr::new(network, bits))
        .ok_or_else(|| (Kind::BadPrefix(prefix.unwrap_or_default().to_owned(), family), span))
}

/// Length of the prefix that a netmask or a host mask stands for, as Python's `ipaddress` reads it.
fn netmask_bits(mask: Ipv4Addr) -> Option<u8> {
    let mask = mask.to_bits();
    let ones = match mask {
        // All zeros is a netmask, all ones too.
        0 | u32::MAX => mask.leading_ones(),
        _ if mask.leading_ones() + mask.trailing_zeros() == 32 => mask.leading_ones(),
        _ if mask.leading_zeros() + mask.trailing_ones() == 32 => mask.leading_zeros(),
        _ => return None,
    };
    u8::try_from(ones).ok()
}

/// An address of `family`, or of either one if it is not known.
pub(super) fn address(word: &str, span: Span, family: Option<Family>) -> Result<IpAddr, Error> {
    let Ok(address) = word.parse() else {
        return Err((Kind::BadAddress(word.to_owned(), family), span));
    };
    match family {
        Some(family) if family != family_of(address) => {
            Err((Kind::WrongFamily(word.to_owned(), family), span))
        }
        _ => Ok(address),
    }
}

/// The name of a TCP flag.
pub(super) fn tcp_flag(word: &str, span: Span) -> Result<TcpFlags, Error> {
    TcpFlags::named(word).ok_or_else(|| {
        (Kind::UnknownFlag(word.to_owned(), similar(word, TcpFlags::NAMES.iter())), span)
    })
}
