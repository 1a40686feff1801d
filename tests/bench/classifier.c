// A classifier of the kind that is compiled anew for every ruleset: its rules are constants, written
// by gen.py. It looks a TCP or UDP packet up in one of them, and pushes or removes a header of 20
// bytes. `make bench` times python3, clang and tc on it; nothing runs it.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <stdbool.h>
#include <stddef.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct rule {
    __be32 saddr, smask, daddr, dmask;
    __u8 protocol, push;
    __be16 sport, dport;
};

// Written by gen.py.
#include RULES

static __always_inline const struct rule *find(const struct iphdr *ip, __be16 sport, __be16 dport)
{
#pragma unroll
    for (int i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        const struct rule *rule = &rules[i];
        if ((ip->saddr & rule->smask) != rule->saddr || (ip->daddr & rule->dmask) != rule->daddr)
            continue;
        if (rule->protocol != ip->protocol)
            continue;
        if ((rule->sport && rule->sport != sport) || (rule->dport && rule->dport != dport))
            continue;
        return rule;
    }
    return NULL;
}

static __always_inline __u16 fold(__s64 sum)
{
#pragma unroll
    for (int i = 0; i < 4; i++)
        sum = (sum & 0xFFFF) + (sum >> 16);
    return ~sum;
}

static __always_inline int resize(struct __sk_buff *skb, __u32 at, struct iphdr ip, bool push)
{
    struct tcphdr header = {.source = bpf_htons(540), .dest = bpf_htons(80), .doff = 5, .syn = 1};
    struct iphdr old = ip;
    int room = push ? (int)sizeof(header) : -(int)sizeof(header);

    ip.tot_len = bpf_htons(bpf_ntohs(ip.tot_len) + room);
    ip.check = 0;
    ip.check = fold(bpf_csum_diff(NULL, 0, (__be32 *)&ip, sizeof(ip), 0));
    if (bpf_skb_adjust_room(skb, room, BPF_ADJ_ROOM_NET, 0))
        return TC_ACT_SHOT;
    if (bpf_skb_store_bytes(skb, at, &ip, sizeof(ip), 0))
        return TC_ACT_SHOT;
    if (push) {
        header.check = fold(bpf_csum_diff((__be32 *)&old, sizeof(old), (__be32 *)&header,
                                          sizeof(header), 0));
        if (bpf_skb_store_bytes(skb, at + sizeof(ip), &header, sizeof(header), 0))
            return TC_ACT_SHOT;
    }
    __s64 addresses = bpf_csum_diff(NULL, 0, &ip.saddr, 8, 0);
    __u32 check = at + sizeof(ip) + (push ? sizeof(header) : 0) + offsetof(struct tcphdr, check);
    if (bpf_l4_csum_replace(skb, check, 0, addresses, 0))
        return TC_ACT_SHOT;
    bpf_set_hash_invalid(skb);
    return TC_ACT_OK;
}

SEC("classifier")
int compiled_anew(struct __sk_buff *skb)
{
    void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    struct ethhdr *eth = data;
    struct iphdr *ip = data + sizeof(*eth);

    if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP) || ip->ihl != 5)
        return TC_ACT_UNSPEC;
    struct udphdr *ports = (void *)(ip + 1);
    if ((void *)(ports + 1) > end)
        return TC_ACT_UNSPEC;
    if (ip->protocol != IPPROTO_TCP && ip->protocol != IPPROTO_UDP)
        return TC_ACT_UNSPEC;
    const struct rule *rule = find(ip, ports->source, ports->dest);
    if (!rule)
        return TC_ACT_UNSPEC;
    return resize(skb, sizeof(*eth), *ip, rule->push);
}

char declared_license[] SEC("license") = "Dual MIT/GPL";
