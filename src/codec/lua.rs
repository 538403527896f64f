//! The rule of `is_compressed` in Lua, for scripts that look at stored values inside Redis.

use super::mark::{LONGEST_MARK, MARK, MARK_DAMAGE, MARKS};

/// A part of a Lua script, in one line: the local function `sealed`, which tells whether a string is an envelope. The first
/// `LONGEST_MARK` bytes of the value are enough.
pub fn lua_is_compressed() -> String {
    let any: Vec<String> = MARKS.iter().map(|mark| format!("begins(value, '{}')", lua_bytes(mark))).collect();
    format!(
        "local function begins(value, mark) \
        if #value < #mark then return false end \
        local flipped = 0 \
        for i = 1, #mark do \
        local bits = bit.bxor(string.byte(value, i), string.byte(mark, i)) \
        while bits > 0 do bits = bit.band(bits, bits - 1) flipped = flipped + 1 end \
        if flipped > {MARK_DAMAGE} then return false end \
        end \
        return true \
        end \
        local function sealed(value) return type(value) == 'string' and ({}) end",
        any.join(" or ")
    )
}

/// A part of a Lua script behind [`lua_is_compressed`], in one line: the local function `seal`. If a key holds a value that looks like an
/// envelope, though no Shortstop has made it, the function puts the value into an envelope of stored blocks, as `compress` does. It returns
/// the error if Redis refuses that.
pub fn lua_compress() -> String {
    let (mark, last) = (lua_bytes(&MARK), LONGEST_MARK - 1);
    format!(
        "local function seal(key) \
        if not sealed(redis.pcall('GETRANGE', key, 0, {last})) then return end \
        local function bytes(number, count) \
        local out = '' \
        for i = 0, count - 1 do out = out .. string.char(bit.band(bit.rshift(number, 8 * i), 255)) end \
        return out \
        end \
        local function crc(value) \
        local sum = bit.bnot(0) \
        for i = 1, #value do \
        sum = bit.bxor(sum, string.byte(value, i)) \
        for _ = 1, 8 do sum = bit.bxor(bit.rshift(sum, 1), bit.band(0xedb88320, -bit.band(sum, 1))) end \
        end \
        return bytes(bit.bnot(sum), 4) \
        end \
        local value = redis.pcall('GETRANGE', key, 0, -1) \
        local blocks = {{}} \
        for from = 1, #value, 65535 do \
        local block = string.sub(value, from, from + 65534) \
        local final = from + 65535 > #value and '\\1' or '\\0' \
        blocks[#blocks + 1] = final .. bytes(#block, 2) .. bytes(bit.bnot(#block), 2) .. block \
        end \
        local body = table.concat(blocks) \
        local set = redis.pcall('SET', key, '{mark}\\1' .. crc(body) .. body .. crc(value) .. bytes(#value, 4), 'KEEPTTL') \
        return type(set) == 'table' and set.err \
        end"
    )
}

/// Bytes as the content of a Lua string.
fn lua_bytes(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\{byte:03}")).collect()
}
