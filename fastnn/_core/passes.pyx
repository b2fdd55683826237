"""What one member of a team does of a forward pass, a backward pass and a training step.

No Python objects here, and no arithmetic: each function finds this member's share of rows, columns or
elements, hands it to csrc, and waits at a barrier where the next operation needs the whole result.
Activations are packed row-major (ld = width); a Linear's weights are the (n_in, n_out) buffer, so
the forward pass and dW read it along n_out, and only dX transposes it on the way. A split never cuts
a sum, so the bits do not depend on the team.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy, memset
from fastnn._core.arrays cimport outer_cache
from fastnn._core.csrc cimport FNN_IDENTITY, fnn_act, fnn_gemm, fnn_kernels, fnn_picked, fnn_stream
from fastnn._core.losses cimport loss_rows
from fastnn._core.threads cimport team_barrier, team_claim, team_share
from fastnn._core.updates cimport update_range


cdef void split(Py_ssize_t m, Py_ssize_t n, Py_ssize_t nr, int member, int team, Py_ssize_t *r0,
                Py_ssize_t *r1, Py_ssize_t *c0, Py_ssize_t *c1) noexcept nogil:
    """This member's rows r0:r1 and columns c0:c1 of an m x n product.

    By columns each member reads its own part of W, by rows its own part of X; columns are dealt in
    whole tiles, so a narrow product is more even by rows.
    """
    cdef Py_ssize_t tiles, widest
    cdef bint even
    r0[0], r1[0], c0[0], c1[0] = 0, m, 0, n
    if team == 1:
        return
    tiles = (n + nr - 1) // nr
    widest = (tiles + team - 1) // team * nr
    even = widest * team * 20 <= n * 21
    if tiles >= team and (m < 8 * team or (even and n >= m)):
        team_share(n, nr, member, team, c0, c1)
    else:
        team_share(m, 1, member, team, r0, r1)


cdef void read_rows(const Net *net, const Rows *x, Py_ssize_t r0, Py_ssize_t r1,
                    char *out) noexcept nogil:
    """Rows r0:r1 of x, in the model's dtype, packed from `out` on."""
    cdef const int64_t *index = x.index + r0 if x.index else NULL
    cdef Py_ssize_t first = 0 if x.index else r0 * x.ld, n = net.n_in, m = r1 - r0
    cdef int kind = x.kind
    if kind == SAME:
        kind = FLOAT32 if net.K.itemsize == 4 else FLOAT64
    if kind == FLOAT32:
        net.K.gather_f32(m, n, <const float *>x.data + first, x.ld, index, out, n)
    elif kind == FLOAT64:
        net.K.gather_f64(m, n, <const double *>x.data + first, x.ld, index, out, n)
    else:
        net.K.gather_u8(m, n, <const uint8_t *>x.data + first, x.ld, index, x.scale, out, n)


cdef bint in_place(const Net *net, const Rows *x) noexcept nogil:
    return x.kind == SAME and x.index == NULL and x.ld == net.n_in


cdef void linear_block(const Net *net, const Op *op, fnn_act act, Py_ssize_t r0, Py_ssize_t r1,
                       Py_ssize_t c0, Py_ssize_t c1, const char *x, char *y,
                       char *work) noexcept nogil:
    """Rows r0:r1 and columns c0:c1 of y = act(x W + b)."""
    cdef Py_ssize_t size = net.K.itemsize
    cdef fnn_gemm g
    memset(&g, 0, sizeof(g))
    g.m, g.n, g.k = r1 - r0, c1 - c0, op.n_in
    g.a, g.a_rs, g.a_cs = x + r0 * op.n_in * size, op.n_in, 1
    g.b, g.b_rs, g.b_cs = net.parameters + (op.weight + c0) * size, op.n_out, 1
    g.bias = net.parameters + (op.bias + c0) * size if op.bias >= 0 else NULL
    g.c, g.ldc = y + (r0 * op.n_out + c0) * size, op.n_out
    g.act, g.slope = act, op.slope
    g.work, g.cache = work, outer_cache()
    net.K.gemm(&g)


cdef void act_block(const fnn_kernels *K, const Op *op, Py_ssize_t r0, Py_ssize_t r1, Py_ssize_t c0,
                    Py_ssize_t c1, const char *x, char *y) noexcept nogil:
    """The activation on rows r0:r1 and columns c0:c1."""
    cdef Py_ssize_t i, at, n = op.n_out
    if c1 - c0 == n:
        at = r0 * n * K.itemsize
        K.act(op.act, op.slope, (r1 - r0) * n, x + at, y + at)
        return
    for i in range(r0, r1):
        at = (i * n + c0) * K.itemsize
        K.act(op.act, op.slope, c1 - c0, x + at, y + at)


cdef void forward_op(const Net *net, const Op *op, Py_ssize_t m, const char *x, char *pre, char *y,
                     char *work, int member, int team) noexcept nogil:
    """This member's part of one operation on m rows; dropout is the caller's.

    pre: where a Linear's pre-activations go, or NULL if they are not wanted.
    """
    cdef Py_ssize_t r0, r1, c0, c1, at, n = op.n_out
    if op.kind == LINEAR:
        split(m, n, net.K.gemm_nr, member, team, &r0, &r1, &c0, &c1)
        if r0 == r1 or c0 == c1:
            return
        if pre:
            linear_block(net, op, FNN_IDENTITY, r0, r1, c0, c1, x, pre, work)
            act_block(net.K, op, r0, r1, c0, c1, pre, y)
        else:
            linear_block(net, op, op.act, r0, r1, c0, c1, x, y, work)
        return
    team_share(m, 1, member, team, &r0, &r1)
    at = r0 * n * net.K.itemsize
    if op.kind == ACT:
        act_block(net.K, op, r0, r1, 0, n, x, y)
    elif op.kind == SOFTMAX:
        net.K.softmax(r1 - r0, n, x + at, n, y + at, n)


# Inference: each member takes rows through all layers, or all members share each layer's columns.

cdef void inference_rows(const Inference *t, Py_ssize_t r0, Py_ssize_t r1, char *work) noexcept nogil:
    """Rows r0:r1 through the whole network, a block at a time, activations in two buffers."""
    cdef const Net *net = &t.net
    cdef Py_ssize_t size = net.K.itemsize, rows, i
    cdef size_t half = t.block * net.width * size
    cdef char *buffers[2]
    cdef const char *x
    cdef char *y
    cdef int which
    half = (half + 63) // 64 * 64
    buffers[0], buffers[1] = work, work + half
    while r0 < r1:
        rows = min(t.block, r1 - r0)
        which = 0
        if in_place(net, &t.x) and net.n_ops > 0:
            x = t.x.data + r0 * net.n_in * size
        else:
            y = t.out + r0 * net.n_out * size if net.n_ops == 0 else buffers[0]
            read_rows(net, &t.x, r0, r0 + rows, y)
            x = y
            which = 1
        for i in range(net.n_ops):
            y = t.out + r0 * net.n_out * size if i == net.n_ops - 1 else buffers[which]
            forward_op(net, &net.ops[i], rows, x, NULL, y, work + 2 * half, 0, 1)
            x = y
            which = 1 - which
        r0 += rows


cdef void inference_task(void *context, int member, int team) noexcept nogil:
    cdef Inference *t = <Inference *>context
    cdef const Net *net = &t.net
    cdef Py_ssize_t r0, r1, i
    cdef size_t half = (t.m * net.width * net.K.itemsize + 63) // 64 * 64
    cdef const char *x = t.x.data
    cdef char *y
    cdef char *work
    if t.by_rows and team > 1 and t.quantum:
        r0 = team_claim(&t.next, t.m, t.quantum, team, &r1)
        while r0 < t.m:
            inference_rows(t, r0, r1, t.work + member * t.member_bytes)
            r0 = team_claim(&t.next, t.m, t.quantum, team, &r1)
        return
    if t.by_rows or team == 1:
        team_share(t.m, 1, member, team, &r0, &r1)
        inference_rows(t, r0, r1, t.work + member * t.member_bytes)
        return
    work = t.work + 2 * half + member * net.gemm_bytes
    if not in_place(net, &t.x):
        team_share(t.m, 1, member, team, &r0, &r1)
        x = t.work + half
        read_rows(net, &t.x, r0, r1, t.work + half + r0 * net.n_in * net.K.itemsize)
        team_barrier(team)
    for i in range(net.n_ops):
        y = t.out if i == net.n_ops - 1 else t.work + (i % 2) * half
        forward_op(net, &net.ops[i], t.m, x, NULL, y, work, member, team)
        if i < net.n_ops - 1:
            team_barrier(team)
        x = y


# Training: one operation at a time, the whole team on it.

cdef const char *training_input(const Training *t) noexcept nogil:
    return t.x.data if in_place(&t.net, &t.x) else t.input


cdef const char *input_of(const Training *t, Py_ssize_t i) noexcept nogil:
    return <const char *>t.outputs[i - 1] if i > 0 else training_input(t)


cdef const char *training_output(const Training *t) noexcept nogil:
    return input_of(t, t.net.n_ops)


cdef void drop(const Training *t, Py_ssize_t i, const char *x, char *y, int member,
               int team) noexcept nogil:
    """The mask of operation i at this step, on x; or a copy where nothing is dropped."""
    cdef const Net *net = &t.net
    cdef Py_ssize_t begin, end, size = net.K.itemsize
    cdef fnn_stream stream
    team_share(t.m * net.ops[i].n_out, 64, member, team, &begin, &end)
    if begin >= end:
        return
    if t.drop:
        # A stream of its own for each step and layer: 32 and 16 of its 48 bits.
        stream.seed = t.seed
        stream.stream = (t.step << 32 >> 16) | (<uint64_t>i & 0xffff)
        stream.start = begin
        net.K.dropout(&stream, net.ops[i].rate, end - begin, x + begin * size, y + begin * size)
    elif x != y:
        memcpy(y + begin * size, x + begin * size, (end - begin) * size)


cdef void pick(const char *source, const int64_t *index, Py_ssize_t size, Py_ssize_t begin,
               Py_ssize_t end, char *out) noexcept nogil:
    """Items index[begin:end] of `size` bytes each."""
    cdef Py_ssize_t i
    for i in range(begin, end):
        memcpy(out + i * size, source + index[i] * size, size)


cdef void mark_units(const Training *t, Py_ssize_t i, int member, int team) noexcept nogil:
    """Mark which of this member's units operation i, a (Leaky)ReLU, has found positive on some row."""
    cdef const Net *net = &t.net
    cdef Py_ssize_t c0, c1, n = net.ops[i].n_out, size = net.K.itemsize
    team_share(n, 64 // size, member, team, &c0, &c1)
    if c0 < c1:
        net.K.mark_positive(t.m, c1 - c0, saved_of(t, i) + c0 * size, n, t.seen[i] + c0 * size)


cdef void forward_pass(const Training *t, int member, int team) noexcept nogil:
    cdef const Net *net = &t.net
    cdef Py_ssize_t r0, r1, i
    cdef char *work = t.work + member * (net.gemm_bytes + net.near_bytes)
    if not in_place(net, &t.x):
        team_share(t.m, 1, member, team, &r0, &r1)
        read_rows(net, &t.x, r0, r1, t.input + r0 * net.n_in * net.K.itemsize)
        if t.all_targets:
            pick(t.all_targets, t.x.index, t.target_bytes, r0, r1, t.batch_targets)
        if t.all_weights:
            pick(t.all_weights, t.x.index, net.K.itemsize, r0, r1, t.batch_weights)
        team_barrier(team)
    for i in range(net.n_ops):
        if net.ops[i].kind == DROPOUT:
            drop(t, i, input_of(t, i), t.outputs[i], member, team)
        else:
            forward_op(net, &net.ops[i], t.m, input_of(t, i), t.inputs[i], t.outputs[i], work,
                       member, team)
        team_barrier(team)
        if t.seen and t.seen[i]:
            mark_units(t, i, member, team)


cdef void loss_pass(const Training *t, int member, int team) noexcept nogil:
    """Row losses, guesses, and the gradient of the mean loss into grads[0]."""
    cdef const Net *net = &t.net
    cdef Py_ssize_t begin, end, size = net.K.itemsize, n = net.n_out
    cdef const char *z = training_output(t)
    team_share(t.m, 8, member, team, &begin, &end)
    if begin < end:
        loss_rows(net.K, t.loss, end - begin, n, z + begin * n * size,
                  t.targets + begin * t.target_bytes,
                  t.weights + begin * size if t.weights else NULL, 1.0 / t.m,
                  t.grads[0] + begin * n * size, t.row_loss + begin)
        if t.loss.is_cross_entropy:
            net.K.argmax(end - begin, n, z + begin * n * size, n, t.guesses + begin)
    team_barrier(team)


cdef const char *saved_of(const Training *t, Py_ssize_t i) noexcept nogil:
    """What the derivative of operation i's activation is computed from."""
    cdef const Op *op = &t.net.ops[i]
    if not op.from_input:
        return t.outputs[i]
    return <const char *>t.inputs[i] if op.kind == LINEAR else input_of(t, i)


cdef void update_block(const Training *t, const Op *op, const char *g, Py_ssize_t ldg, Py_ssize_t r0,
                       Py_ssize_t r1, Py_ssize_t c0, Py_ssize_t c1) noexcept nogil:
    """The optimizer's update of rows r0:r1 and columns c0:c1 of a weight buffer from their gradients g."""
    cdef Py_ssize_t r, at, n = op.n_out
    if c1 - c0 == n == ldg:
        at = op.weight + r0 * n
        update_range(t.net.K, t.rule, g, at, at + (r1 - r0) * n)
        return
    for r in range(r0, r1):
        at = op.weight + r * n
        update_range(t.net.K, t.rule, g + (r - r0) * ldg * t.net.K.itemsize, at + c0, at + c1)


cdef void look_at_next(const Training *t, Py_ssize_t tiles, int member, int team,
                       fnn_picked *picked) noexcept nogil:
    """The next batch's rows that this member will gather, for the last of so many tiles to fetch."""
    cdef Py_ssize_t parts
    team_share(t.next_m, 1, member, team, &picked.row, &picked.rows)
    picked.data, picked.index, picked.at = t.x.data, t.next_index, 0
    picked.bytes, picked.stride = t.net.n_in * t.x_itemsize, t.x.ld * t.x_itemsize
    if picked.bytes < 8 * t.m:
        picked.rows = picked.row    # the tiles would fetch the same few lines again and again
    # A tile fetches up to a line for each row of the batch.
    parts = (picked.rows - picked.row) * ((picked.bytes + 64 * t.m - 1) // (64 * t.m)) + 1
    picked.every = max(1, min(4, tiles // parts))
    picked.turn = min(0, parts * picked.every - tiles)


cdef void grad_weights(const Training *t, Py_ssize_t i, const char *dz, char *work, int member,
                       int team) noexcept nogil:
    """This member's part of dW = x^T dz and db = column sums of dz, and of their update if one is due.

    As long as dz is near the core, some rows of dW at a time, to a buffer from which the update takes
    them. Kernels may fetch the parameters and the state that it works on meanwhile.
    """
    cdef const Net *net = &t.net
    cdef const Op *op = &net.ops[i]
    cdef Py_ssize_t r, r0, r1, c0, c1, rows, at, size = net.K.itemsize
    cdef fnn_gemm g
    cdef fnn_picked picked
    cdef bint near
    picked.row = picked.rows = 0
    split(op.n_in, op.n_out, net.K.gemm_nr, member, team, &r0, &r1, &c0, &c1)
    rows = r1 - r0
    # As long as a batch stays near, and where dz, being neither cut nor copied, lets one count the tiles.
    if i == 0 and t.rule and t.next_m * net.n_in * size <= NEAR and t.m * (c1 - c0) * size <= 2 * NEAR:
        look_at_next(t, rows // net.K.gemm_mr * ((c1 - c0) // net.K.gemm_nr), member, team, &picked)
    near = t.rule != NULL and t.m * (c1 - c0) * size <= NEAR
    if near:
        rows = max(1, <Py_ssize_t>net.near_bytes // (max(1, c1 - c0) * size * net.K.gemm_mr))
        rows *= net.K.gemm_mr
    r = r0
    while r < r1 and c0 < c1:
        rows = min(rows, r1 - r)
        memset(&g, 0, sizeof(g))
        g.m, g.n, g.k = rows, c1 - c0, t.m
        g.a, g.a_rs, g.a_cs = input_of(t, i) + r * size, 1, op.n_in
        g.b, g.b_rs, g.b_cs = dz + c0 * size, op.n_out, 1
        g.c, g.ldc = net.gradients + (op.weight + r * op.n_out + c0) * size, op.n_out
        g.act = FNN_IDENTITY
        g.work = work
        g.picked = &picked if picked.row < picked.rows else NULL
        if near:
            g.c, g.ldc = work + net.gemm_bytes, g.n
            if g.n == op.n_out:
                at = (op.weight + r * op.n_out) * size
                g.soon_bytes = rows * g.n * size
                g.soon[0] = t.rule.w + at
                g.soon[1] = t.rule.first + at if t.rule.first else NULL
                g.soon[2] = t.rule.second + at if t.rule.second else NULL
        net.K.gemm(&g)
        if t.rule:
            update_block(t, op, <const char *>g.c, g.ldc, r, r + rows, c0, c1)
        r += rows
    if op.bias >= 0:
        team_share(op.n_out, 16, member, team, &c0, &c1)
        net.K.column_sums(t.m, c1 - c0, dz + c0 * size, op.n_out,
                          net.gradients + (op.bias + c0) * size)
        if t.rule:
            update_range(net.K, t.rule, net.gradients + (op.bias + c0) * size, op.bias + c0,
                         op.bias + c1)


cdef void grad_input(const Training *t, Py_ssize_t i, const char *dz, char *dx, char *work,
                     int member, int team) noexcept nogil:
    """This member's part of dx = dz W^T, times f' of the operation before where that is one."""
    cdef const Net *net = &t.net
    cdef const Op *op = &net.ops[i]
    cdef const Op *before = &net.ops[i - 1]
    cdef Py_ssize_t r0, r1, c0, c1, size = net.K.itemsize
    cdef fnn_gemm g
    split(t.m, op.n_in, net.K.gemm_nr, member, team, &r0, &r1, &c0, &c1)
    if r0 >= r1 or c0 >= c1:
        return
    memset(&g, 0, sizeof(g))
    g.m, g.n, g.k = r1 - r0, c1 - c0, op.n_out
    g.a, g.a_rs, g.a_cs = dz + r0 * op.n_out * size, op.n_out, 1
    g.b, g.b_rs, g.b_cs = net.parameters + (op.weight + c0 * op.n_out) * size, 1, op.n_out
    g.c, g.ldc = dx + (r0 * op.n_in + c0) * size, op.n_in
    g.act = FNN_IDENTITY
    if i > 0 and has_activation(before):
        g.act, g.slope = before.act, before.slope
        g.saved, g.lds = saved_of(t, i - 1) + (r0 * op.n_in + c0) * size, op.n_in
    g.work = work
    net.K.gemm(&g)


cdef bint has_activation(const Op *op) noexcept nogil:
    return (op.kind == LINEAR or op.kind == ACT) and op.act != FNN_IDENTITY


cdef void backward_pass(const Training *t, int member, int team) noexcept nogil:
    """From the gradient of the output in grads[0] to the gradients of all parameters (and of x).

    With a rule, each Linear's parameters are updated as soon as nobody needs the old ones. One may
    still read a Linear's dy here while another writes the dx of the Linear before it: so three
    buffers take turns.
    """
    cdef const Net *net = &t.net
    cdef const Op *op
    cdef Py_ssize_t i, begin, end, at, size = net.K.itemsize
    cdef int now = 0
    cdef bint done = False   # the gradient already has f' of operation i
    cdef char *dy
    cdef char *dx
    cdef char *work = t.work + member * (net.gemm_bytes + net.near_bytes)
    for i in range(net.n_ops - 1, -1, -1):
        op = &net.ops[i]
        dy = t.grads[now]
        if has_activation(op) and not done:
            team_share(t.m * op.n_out, 64, member, team, &begin, &end)
            at = begin * size
            net.K.act_grad(op.act, op.slope, end - begin, saved_of(t, i) + at, dy + at, dy + at)
            team_barrier(team)
        done = False
        if op.kind == LINEAR:
            now = (now + 1) % 3
            dx = t.grads[now] if i > 0 else t.grad_x
            if dx:
                grad_input(t, i, dy, dx, work, member, team)
                team_barrier(team)
            grad_weights(t, i, dy, work, member, team)
            done = True
        elif op.kind == SOFTMAX:
            team_share(t.m, 1, member, team, &begin, &end)
            at = begin * op.n_out * size
            net.K.softmax_grad(end - begin, op.n_out, t.outputs[i] + at, op.n_out, dy + at,
                               op.n_out, dy + at, op.n_out)
            team_barrier(team)
        elif op.kind == DROPOUT:
            drop(t, i, dy, dy, member, team)
            team_barrier(team)
    if t.grad_x and (net.n_ops == 0 or net.ops[0].kind != LINEAR):
        team_share(t.m * net.n_in, 64, member, team, &begin, &end)
        memcpy(t.grad_x + begin * size, t.grads[now] + begin * size, (end - begin) * size)


cdef void forward_task(void *context, int member, int team) noexcept nogil:
    forward_pass(<const Training *>context, member, team)


cdef void backward_task(void *context, int member, int team) noexcept nogil:
    cdef const Training *t = <const Training *>context
    cdef Py_ssize_t begin, end, size = t.net.K.itemsize
    team_share(t.m * t.net.n_out, 64, member, team, &begin, &end)
    memcpy(t.grads[0] + begin * size, t.grad_out + begin * size, (end - begin) * size)
    team_barrier(team)
    backward_pass(t, member, team)


cdef void step_task(void *context, int member, int team) noexcept nogil:
    """Forward, loss, backward and update of one batch."""
    cdef const Training *t = <const Training *>context
    forward_pass(t, member, team)
    loss_pass(t, member, team)
    backward_pass(t, member, team)
