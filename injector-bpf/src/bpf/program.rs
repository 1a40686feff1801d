//! The entry: parse, look up, act, count.

use abi::{Reason, action, find_rule};
use aya_ebpf::bindings::{TC_ACT_OK, TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use super::lookup::MapTables;
use super::packet::Packet;
use super::skb::Skb;
use super::{dnat, funnel, maps, unfunnel};

/// Dual, so that the kernel allows GPL-only helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// The classifier. Its name is `abi::program_name()`.
#[classifier]
pub fn sfunnel(ctx: TcContext) -> i32 {
    match try_sfunnel(Skb::new(&ctx)) {
        Ok(verdict) => verdict,
        Err(reason) => {
            maps::count_reason(reason);
            match reason {
                Reason::Dropped => TC_ACT_SHOT,
                _ => TC_ACT_UNSPEC,
            }
        }
    }
}

#[inline(always)]
fn try_sfunnel(skb: Skb) -> Result<i32, Reason> {
    // Other filters on the hook go on with a packet that is none of ours.
    let Some(config) = maps::CONFIG.get(0) else { return Ok(TC_ACT_UNSPEC) };
    let Some(packet) = Packet::parse(&skb, config)? else { return Ok(TC_ACT_UNSPEC) };
    let Some(number) = find_rule(&MapTables { config, skb: &skb }, &packet.key()) else {
        return Ok(TC_ACT_UNSPEC);
    };
    let number = skb.forget(number);
    let Some(rule) = maps::RULES.get(number) else { return Ok(TC_ACT_UNSPEC) };

    let verdict = match rule.action {
        action::ACCEPT => TC_ACT_OK,
        action::DROP => TC_ACT_SHOT,
        action::FUNNEL => {
            funnel::funnel(&skb, &packet, rule, config)?;
            TC_ACT_OK
        }
        action::UNFUNNEL => {
            unfunnel::unfunnel(&skb, &packet, rule)?;
            TC_ACT_OK
        }
        action::DNAT => {
            dnat::dnat(&skb, &packet, rule)?;
            TC_ACT_OK
        }
        _ => return Ok(TC_ACT_UNSPEC),
    };
    maps::count_rule(number, packet.total_len());
    Ok(verdict)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program that can get here.
    loop {}
}
