// SPDX-License-Identifier: Apache-2.0
// Of what comes in, the data plane gets what it claims; everything else is the kernel's, as if nothing were here.
//
// One map of longest prefixes says what is claimed. Its key is an address (IPv4 mapped into IPv6, RFC 4291 2.5.5.2), a
// protocol and a port, in this order, so that one lookup finds both "all of this prefix" and "these ports of that address";
// the longest match decides.

#include <linux/bpf.h>
#include <linux/types.h>

// What libbpf's headers would give; they are not everywhere.
#define SEC(name) __attribute__((section(name), used))
#define __uint(name, value) int(*name)[value]
#define ALWAYS_INLINE inline __attribute__((always_inline))
static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*bpf_redirect_map)(void *map, __u64 key, __u64 flags) = (void *)BPF_FUNC_redirect_map;

#define ETHERNET_HEADER 14
#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_ARP 0x0806
#define ETHERTYPE_IPV6 0x86dd
#define IPV6_HEADER 40
#define ICMP_HEADER 8

#define ICMP 1
#define IPV4_IN_IP 4
#define TCP 6
#define UDP 17
#define IPV6_IN_IP 41
#define ICMPV6 58
#define SCTP 132
#define UDPLITE 136

struct claim {
	__u32 length; // in bits, of what follows
	__u8 address[16];
	__u8 protocol;
	__u8 port[2];
} __attribute__((packed));

#define WHOLE (8 * (sizeof(struct claim) - sizeof(__u32)))

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 20);
	__uint(key_size, sizeof(struct claim));
	__uint(value_size, sizeof(__u32));
} claims SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 64);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} margay_sockets SEC(".maps");

static ALWAYS_INLINE void set_ipv4(struct claim *claim, const __u8 *address)
{
	claim->address[10] = 0xff;
	claim->address[11] = 0xff;
	__builtin_memcpy(claim->address + 12, address, 4);
}

static ALWAYS_INLINE void set_port(struct claim *claim, __u8 protocol, const __u8 *port)
{
	claim->protocol = protocol;
	claim->port[0] = port[0];
	claim->port[1] = port[1];
}

static ALWAYS_INLINE int has_ports(__u8 protocol)
{
	return protocol == TCP || protocol == UDP || protocol == SCTP || protocol == UDPLITE;
}

// An ICMP error belongs to whoever sent the packet that it quotes: the port is that packet's source port.
static ALWAYS_INLINE void set_quoted_ipv4(struct claim *claim, const __u8 *quoted, const void *end)
{
	if ((const void *)(quoted + 20) > end)
		return;
	__u8 protocol = quoted[9];
	const __u8 *transport = quoted + (quoted[0] & 15) * 4;
	if ((const void *)(transport + ICMP_HEADER) > end)
		return;
	if (has_ports(protocol))
		set_port(claim, protocol, transport);
	else if (protocol == ICMP)
		set_port(claim, ICMP, transport + 4);
}

static ALWAYS_INLINE void set_quoted_ipv6(struct claim *claim, const __u8 *quoted, const void *end)
{
	const __u8 *transport = quoted + IPV6_HEADER;
	if ((const void *)(transport + ICMP_HEADER) > end)
		return;
	if (has_ports(quoted[6]))
		set_port(claim, quoted[6], transport);
	else if (quoted[6] == ICMPV6)
		set_port(claim, ICMPV6, transport + 4);
}

// Who is asked for: RFC 826.
static ALWAYS_INLINE int fill_arp(struct claim *claim, const __u8 *arp, const void *end)
{
	if ((const void *)(arp + 28) > end)
		return 0;
	set_ipv4(claim, arp + 24);
	return 1;
}

static ALWAYS_INLINE int fill_ipv4(struct claim *claim, const __u8 *header, const void *end)
{
	if ((const void *)(header + 20) > end)
		return 0;
	set_ipv4(claim, header + 16);
	__u8 protocol = header[9];
	const __u8 *transport = header + (header[0] & 15) * 4;
	int is_later_fragment = (header[6] & 0x1f) || header[7];
	if (is_later_fragment || (const void *)(transport + ICMP_HEADER) > end)
		return 1;
	if (has_ports(protocol))
		set_port(claim, protocol, transport + 2);
	else if (protocol == IPV4_IN_IP || protocol == IPV6_IN_IP)
		claim->protocol = protocol;
	else if (protocol == ICMP && transport[0] == 0)
		set_port(claim, ICMP, transport + 4);
	else if (protocol == ICMP && (transport[0] == 3 || transport[0] == 11 || transport[0] == 12))
		set_quoted_ipv4(claim, transport + ICMP_HEADER, end);
	return 1;
}

static ALWAYS_INLINE int fill_ipv6(struct claim *claim, const __u8 *header, const void *end)
{
	const __u8 *transport = header + IPV6_HEADER;
	if ((const void *)transport > end)
		return 0;
	__builtin_memcpy(claim->address, header + 24, 16);
	__u8 protocol = header[6];
	if ((const void *)(transport + ICMP_HEADER) > end)
		return 1;
	if (has_ports(protocol))
		set_port(claim, protocol, transport + 2);
	else if (protocol == ICMPV6 && transport[0] == 129)
		set_port(claim, ICMPV6, transport + 4);
	else if (protocol == ICMPV6 && transport[0] < 128)
		set_quoted_ipv6(claim, transport + ICMP_HEADER, end);
	// Who is asked for: RFC 4861 4.3.
	else if (protocol == ICMPV6 && transport[0] == 135 && (const void *)(transport + 24) <= end)
		__builtin_memcpy(claim->address, transport + 8, 16);
	return 1;
}

SEC("xdp")
int margay_xdp(struct xdp_md *context)
{
	const __u8 *frame = (const __u8 *)(long)context->data;
	const void *end = (const void *)(long)context->data_end;
	if ((const void *)(frame + ETHERNET_HEADER) > end)
		return XDP_PASS;
	const __u8 *payload = frame + ETHERNET_HEADER;
	struct claim claim = {.length = WHOLE};
	int is_known = 0;
	switch (frame[12] << 8 | frame[13]) {
	case ETHERTYPE_ARP:
		is_known = fill_arp(&claim, payload, end);
		break;
	case ETHERTYPE_IPV4:
		is_known = fill_ipv4(&claim, payload, end);
		break;
	case ETHERTYPE_IPV6:
		is_known = fill_ipv6(&claim, payload, end);
		break;
	}
	if (!is_known)
		return XDP_PASS;
	const __u32 *is_claimed = bpf_map_lookup_elem(&claims, &claim);
	if (!is_claimed || !*is_claimed)
		return XDP_PASS;
	return bpf_redirect_map(&margay_sockets, context->rx_queue_index, XDP_PASS);
}

char terms[] SEC("license") = "Apache-2.0";
