/* philox.h: Philox4x32-10 on vectors of counters, for both dtypes; one copy per instruction set.
 *
 * Each 32-bit word of a counter has a 64-bit lane to itself, so that one multiplication yields the
 * low and the high half of the product where the next round wants them: a round is two
 * multiplications, two shifts and two three-way exclusive ors. The upper halves of the lanes hold
 * leavings that vmul32 does not look at. */
#ifndef FNN_PHILOX_H
#define FNN_PHILOX_H

/* A block: the groups of counters that go through the rounds together, PHILOX_CHAINS vectors of
 * them. As measured: four groups with the 32 registers of AVX-512, and one elsewhere. */
enum {
    PHILOX_ROUNDS = 10,
    PHILOX_MAX_ATTEMPTS = 1 << 16,
    PHILOX_GROUPS = VEC_BYTES == 64 ? 4 : 1,
    PHILOX_BLOCK = PHILOX_GROUPS * FNN_RNG_GROUP,
    PHILOX_CHAINS = PHILOX_BLOCK * 8 / VEC_BYTES
};

typedef struct {
    vu64 key[PHILOX_ROUNDS][2];
    vu64 stream[2]; /* counter words 2 and 3 */
} philox;

static const uint64_t philox_lanes[] = {0, 1, 2, 3, 4, 5, 6, 7};

static __attribute__((noinline)) philox philox_make(const fnn_stream *s) {
    philox p;
    uint32_t k0 = (uint32_t)s->seed, k1 = (uint32_t)(s->seed >> 32);
    UNROLL for (int round = 0; round < PHILOX_ROUNDS; round++) {
        p.key[round][0] = (vu64){0} + k0;
        p.key[round][1] = (vu64){0} + k1;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    p.stream[0] = (vu64){0} + (uint32_t)s->stream;
    p.stream[1] = (vu64){0} + (uint32_t)(s->stream >> 32 & 0xffff);
    return p;
}

INLINE philox philox_attempt(philox p, int attempt) {
    p.stream[1] |= (uint64_t)attempt << 16;
    return p;
}

/* How many counters from `first` on, a multiple of FNN_RNG_GROUP, go through the rounds as one block: those with
 * the same upper word. */
INLINE ptrdiff_t philox_run(uint64_t first) {
    const uint64_t left = ((uint64_t)1 << 32) - (uint32_t)first;
    return left < PHILOX_BLOCK ? (ptrdiff_t)left : PHILOX_BLOCK;
}

/* A round's product of word 0 or 2. */
INLINE vu64 philox_product(const vu64 c[4], int word) {
    return vmul32(c[word], (vu64){0} + (word ? 0xCD9E8D57u : 0xD2511F53u));
}

/* The words of a block of counters after some rounds, interleaved round by round: one chain alone would wait
 * for its multiplications. One 64-bit lane per counter, upper halves undefined. Chain i holds the
 * counters from first + i * lanes on; or, paired, chains 2 i and 2 i + 1 hold the even and the odd
 * ones of twice as many. All have the upper word of `first`: what the first two rounds make of it and of the stream
 * is the same for all chains, and compilers see that it is. */
INLINE void philox_words(const philox *p, int paired, int rounds, uint64_t first, vu64 c[][4]) {
    vu64 lanes;
    memcpy(&lanes, philox_lanes, sizeof lanes);
    UNROLL for (int i = 0; i < PHILOX_CHAINS; i++) {
        const uint64_t start = first + (paired ? i & ~1 : i) * (VEC_BYTES / 8);
        c[i][0] = (paired ? 2 * lanes + (i & 1) : lanes) + start;
        c[i][1] = (vu64){0} + (first >> 32);
        c[i][2] = p->stream[0];
        c[i][3] = p->stream[1];
    }
    UNROLL for (int round = 0; round < rounds; round++)
        UNROLL for (int i = 0; i < PHILOX_CHAINS; i++) {
            const vu64 a = philox_product(c[i], 0), b = philox_product(c[i], 2);
            c[i][0] = (b >> 32) ^ c[i][1] ^ p->key[round][0];
            c[i][1] = b;
            c[i][2] = (a >> 32) ^ c[i][3] ^ p->key[round][1];
            c[i][3] = a;
        }
}

/* Word j of the counters from `first` on in w[i][j], a 32-bit lane each. The last round is done
 * for pairs of chains, whose words 32-bit lanes then share. */
INLINE void philox_words32(const philox *p, uint64_t first, vu32 w[][4]) {
    const vu64 *const key = p->key[PHILOX_ROUNDS - 1];
    const vu32 key_0 = vpair32(key[0], key[0]), key_1 = vpair32(key[1], key[1]);
    vu64 c[PHILOX_CHAINS][4], a[PHILOX_CHAINS], b[PHILOX_CHAINS];
    philox_words(p, 1, PHILOX_ROUNDS - 1, first, c);
    UNROLL for (int i = 0; i < PHILOX_CHAINS; i++) {
        a[i] = philox_product(c[i], 0);
        b[i] = philox_product(c[i], 2);
    }
    UNROLL for (int i = 0; i < PHILOX_CHAINS / 2; i++) {
        const int even = 2 * i, odd = 2 * i + 1;
        w[i][0] = vpair32_high(b[even], b[odd]) ^ vpair32(c[even][1], c[odd][1]) ^ key_0;
        w[i][1] = vpair32(b[even], b[odd]);
        w[i][2] = vpair32_high(a[even], a[odd]) ^ vpair32(c[even][3], c[odd][3]) ^ key_1;
        w[i][3] = vpair32(a[even], a[odd]);
    }
}

/* Where counter c of a block has its word (or pair of words) 0 in groups of that many elements; the
 * next ones follow FNN_RNG_GROUP further on. */
INLINE ptrdiff_t philox_place(int c, int group) {
    return c / FNN_RNG_GROUP * group + c % FNN_RNG_GROUP;
}

/* The words of a block of counters, in the order of fastnn.h. */
INLINE void philox_block(const philox *p, uint64_t first, uint32_t *out) {
    const int lanes = VEC_BYTES / 4;
    vu32 w[PHILOX_CHAINS / 2][4];
    philox_words32(p, first, w);
    UNROLL for (int i = 0; i < PHILOX_CHAINS / 2; i++)
        UNROLL for (int j = 0; j < 4; j++)
            memcpy(out + philox_place(i * lanes, 64) + FNN_RNG_GROUP * j, &w[i][j], VEC_BYTES);
}

#endif
