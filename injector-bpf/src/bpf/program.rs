//! The entry: parse, look up, act, count.

use abi::{Reason, action, find_rule, flag};
use aya_ebpf::bindings::{TC_ACT_OK, TC_ACT_REDIRECT, TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use super::ip::ETHERNET;
use super::linear::Linear;
use super::lookup::MapTables;
use super::skb::Skb;
use super::{dnat, funnel, maps, quote, translate, unfunnel};

/// Dual, so that the kernel allows GPL-only helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// `abi::program_name::DIRECT`.
#[classifier]
#[inline(always)]
pub fn sfunnel(ctx: TcContext) -> i32 {
    classify(&ctx, true)
}

/// `abi::program_name::BY_HELPERS`: for kernels on which a program without CAP_PERFMON may not
/// compare packet pointers (verifier.rs).
#[classifier]
#[inline(always)]
pub fn sfunnel_helpers(ctx: TcContext) -> i32 {
    classify(&ctx, false)
}

/// `abi::program_name::PROBE`: compares packet pointers.
#[classifier]
pub fn sfunnel_probe(ctx: TcContext) -> i32 {
    let all = Linear::<ETHERNET>::new(ctx.data(), ctx.data_end());
    if all.is_some() { TC_ACT_OK } else { TC_ACT_UNSPEC }
}

#[inline(always)]
fn classify(ctx: &TcContext, direct: bool) -> i32 {
    let Some(skb) = Skb::new(ctx, direct) else { return TC_ACT_UNSPEC };
    match try_sfunnel(&skb) {
        Ok(verdict) => verdict,
        Err(reason) => {
            // Here all failures come together.
            let number = skb.forget(reason as u32);
            maps::count_reason(number);
            if number == Reason::Dropped as u32 {
                TC_ACT_SHOT
            } else if number == Reason::TooBig as u32 {
                // To the interface that was named with the answer.
                TC_ACT_REDIRECT
            } else {
                TC_ACT_UNSPEC
            }
        }
    }
}

#[inline(always)]
fn try_sfunnel(skb: &Skb) -> Result<i32, Reason> {
    // Other filters on the hook go on with a packet that is none of ours.
    let Some(config) = maps::CONFIG.get(0) else { return Ok(TC_ACT_UNSPEC) };
    let packet = skb.packet();
    match packet.parse(skb, config) {
        Ok(true) => {}
        Ok(false) => return Ok(TC_ACT_UNSPEC),
        // Of errors alone there are other rules here to count it, or none.
        Err(_) if config.actions == 0 => return Ok(TC_ACT_UNSPEC),
        Err(reason) => return Err(reason),
    }
    let packet = skb.again(packet);
    let Some(number) = find_rule(&MapTables { config, skb }, &packet.key()) else {
        return Ok(TC_ACT_UNSPEC);
    };
    let number = skb.forget(number);
    let Some(rule) = skb.entry(&maps::RULES, number) else { return Ok(TC_ACT_UNSPEC) };

    let quotes = rule.flags & flag::QUOTES != 0;
    let is = |action: u8| rule.action == action && config.actions >> action & 1 != 0;
    let verdict = if packet.quote != 0 {
        if !quote::undo(skb, packet, rule, config)? {
            return Ok(TC_ACT_UNSPEC);
        }
        TC_ACT_OK
    } else if quotes {
        return Ok(TC_ACT_UNSPEC);
    } else if is(action::ACCEPT) {
        TC_ACT_OK
    } else if is(action::DROP) {
        TC_ACT_SHOT
    } else if is(action::FUNNEL) {
        funnel::funnel(skb, packet, rule, config)?;
        TC_ACT_OK
    } else if is(action::UNFUNNEL) {
        unfunnel::unfunnel(skb, packet, rule)?;
        TC_ACT_OK
    } else if is(action::DNAT) {
        dnat::dnat(skb, packet, rule)?;
        TC_ACT_OK
    } else if is(action::TRANSLATE) {
        translate::translate(skb, packet, rule)?;
        TC_ACT_OK
    } else {
        return Ok(TC_ACT_UNSPEC);
    };
    maps::count_rule(number, packet.total_len());
    Ok(verdict)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program that can get here.
    loop {}
}
