"""From ids to logits. The letters are those of minillm/sizes.py."""

from minillm.layers.attention import scaled_dot_product_attention
from minillm.layers.rope import rotate, rotation
from minillm.steps import under


def hidden(ids, weights, config, positions, cache, step, ops, keep):
    x = step("embed", step("wte", weights["tokens"]["weight"].take(ids, axis=0)))  # -> [B,T,C]
    turn = rotation(positions, config.D, config.theta, dtype=x.dtype)
    for i, layer in enumerate(weights["blocks"]):
        past, inside = cache and cache.layer(i), under(f"h.{i}.", step)
        x = block(x, **layer, config=config, positions=positions, turn=turn, past=past,
                  step=inside, ops=ops)  # fmt: skip
    return step("ln_f", ops.rms_norm(x[keep], weights["norm"]["weight"], config.eps))


def block(x, norm, attn, mlp, *, config, positions, turn, past, step, ops):
    """x + attention(norm(x)) + feed_forward(norm(x)): [B,T,C] -> [B,T,C]."""
    normed = step("ln_1", ops.rms_norm(x, norm["weight"], config.eps))
    attended = attention(normed, attn, config, positions, turn, past, under("attn.", step), ops)
    x = step("attn.residual", x + attended)
    act = step("mlp.act", ops.relu(step("mlp.up", ops.linear(normed, mlp["up"]["weight"]))))
    return step("mlp.residual", x + step("mlp.out", ops.linear(act, mlp["down"]["weight"])))


def attention(x, weights, config, positions, turn, past, step, ops):
    q, k, v = (ops.linear(x, weights[name]["weight"]) for name in "qkv")
    q = step("q", ops.split_heads(q, config.H))  # [B,T,HD] -> [B,H,T,D]
    k = step("k", ops.split_heads(k, config.K))  # [B,T,KD] -> [B,K,T,D]
    v = step("v", ops.split_heads(v, config.K))
    q, k = step("q_rotated", rotate(q, *turn)), step("k_rotated", rotate(k, *turn))
    k, v = past.append(k, v) if past else (k, v)  # [B,K,T,D] -> [B,K,S,D]
    context = scaled_dot_product_attention(q, k, v, positions, config.D**-0.5, step, ops)
    return step("out", ops.linear(ops.merge_heads(context), weights["o"]["weight"]))  # -> [B,T,C]


def head(x, weights, step, ops):
    return step("logits", ops.linear(x, weights["tokens"]["weight"].T))
