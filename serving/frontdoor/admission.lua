-- Runs in Envoy on the headers of every request: who calls, whether they may, and by when they want the answer.
--
-- `filterContext` has the settings and the keys, each under the SHA-256 of the whole key, so that a key is looked up,
-- never compared; the route's metadata says which scope it takes. Tokens were verified by Envoy's own filter before.

local band, bor, bnot, bxor = bit.band, bit.bor, bit.bnot, bit.bxor
local lshift, rshift, ror, tobit, tohex = bit.lshift, bit.rshift, bit.ror, bit.tobit, bit.tohex

local RESERVED = { "x-slipway-arrived", "x-slipway-deadline", "x-slipway-timeout-ms" }
local CREDENTIALS = { "authorization", "proxy-authorization", "x-api-key", "cookie" }
local SECONDS = { H = 3600, M = 60, S = 1, m = 1e-3, u = 1e-6, n = 1e-9 }
local LONGEST_KEY = 128

local K = {
  0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
  0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
  0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
  0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
  0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
  0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
  0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
  0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
}

-- SHA-256 (FIPS 180-4) of `text`, in hexadecimal. Envoy's Lua has none of its own.
local function sha256(text)
  local zeros = (55 - #text) % 64
  local message = text .. "\128" .. string.rep("\0", zeros + 4)
  local bits = #text * 8
  message = message .. string.char(
    band(rshift(bits, 24), 255), band(rshift(bits, 16), 255), band(rshift(bits, 8), 255), band(bits, 255)
  )
  local h0, h1, h2, h3 = 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a
  local h4, h5, h6, h7 = 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19
  local w = {}
  for start = 1, #message, 64 do
    for i = 0, 15 do
      local a, b, c, d = string.byte(message, start + 4 * i, start + 4 * i + 3)
      w[i] = bor(lshift(a, 24), lshift(b, 16), lshift(c, 8), d)
    end
    for i = 16, 63 do
      local x, y = w[i - 15], w[i - 2]
      local s0 = bxor(ror(x, 7), ror(x, 18), rshift(x, 3))
      local s1 = bxor(ror(y, 17), ror(y, 19), rshift(y, 10))
      w[i] = tobit(w[i - 16] + s0 + w[i - 7] + s1)
    end
    local a, b, c, d, e, f, g, h = h0, h1, h2, h3, h4, h5, h6, h7
    for i = 0, 63 do
      local s1 = bxor(ror(e, 6), ror(e, 11), ror(e, 25))
      local t1 = tobit(h + s1 + bxor(band(e, f), band(bnot(e), g)) + K[i + 1] + w[i])
      local s0 = bxor(ror(a, 2), ror(a, 13), ror(a, 22))
      local t2 = tobit(s0 + bxor(band(a, b), band(a, c), band(b, c)))
      h, g, f, e, d, c, b, a = g, f, e, tobit(d + t1), c, b, a, tobit(t1 + t2)
    end
    h0, h1, h2, h3 = tobit(h0 + a), tobit(h1 + b), tobit(h2 + c), tobit(h3 + d)
    h4, h5, h6, h7 = tobit(h4 + e), tobit(h5 + f), tobit(h6 + g), tobit(h7 + h)
  end
  return tohex(h0) .. tohex(h1) .. tohex(h2) .. tohex(h3) .. tohex(h4) .. tohex(h5) .. tohex(h6) .. tohex(h7)
end

-- The API key of a request and its bearer token; either may be nil.
local function presented(headers)
  local key = headers:get("x-api-key")
  local bearer = string.match(headers:get("authorization") or "", "^[Bb][Ee][Aa][Rr][Ee][Rr]%s+(.+)$")
  if key == nil and bearer ~= nil and string.sub(bearer, 1, 4) == "slw_" then
    key = bearer
  end
  return key, bearer
end

-- Whose key it is, or nil and the reason.
local function key_holder(settings, key)
  local holder = #key <= LONGEST_KEY and settings:get("key " .. sha256(key)) or nil
  if holder == nil then
    return nil, "the API key is not known here"
  end
  if holder.expires > 0 and os.time() >= holder.expires then
    return nil, "the API key has expired"
  end
  return holder
end

local function grants(claim, scope, model)
  local one, every = scope .. ":" .. model, scope .. ":*"
  if type(claim) == "string" then
    for word in string.gmatch(claim, "%S+") do
      if word == one or word == every then
        return true
      end
    end
  elseif type(claim) == "table" then
    for place, word in pairs(claim) do
      -- An object is a table, too, and its values are no scopes.
      if type(place) == "number" and (word == one or word == every) then
        return true
      end
    end
  end
  return false
end

-- Whose token it is, or nil and the reason.
local function token_bearer(handle, settings)
  local found = handle:streamInfo():dynamicMetadata():get("envoy.filters.http.jwt_authn") or {}
  local claims = found.claims
  if claims == nil then
    return nil, found.failure and found.failure.message or "the token is not one that is accepted here"
  end
  local claim, model = claims[settings:get("scope claim")], settings:get("model")
  local id = claims[settings:get("caller claim")]
  return {
    id = type(id) == "string" and id or "token without a subject",
    predict = grants(claim, "predict", model),
    admin = grants(claim, "admin", model),
  }
end

-- Status, reason and headers of a refusal, or nothing.
local function refusal_of_caller(handle, settings)
  local scope = handle:metadata():get("scope")
  if not settings:get("auth") or scope == "public" then
    return
  end
  local key, bearer = presented(handle:headers())
  local caller, reason
  if key ~= nil then
    caller, reason = key_holder(settings, key)
  elseif bearer ~= nil and settings:get("tokens") then
    caller, reason = token_bearer(handle, settings)
  elseif bearer ~= nil then
    reason = "the bearer token is not an API key of this endpoint"
  else
    return "401", "credentials are needed: " .. settings:get("how"), 'Bearer realm="slipway"'
  end
  if caller == nil then
    return "401", reason, 'Bearer realm="slipway", error="invalid_token"'
  end
  handle:streamInfo():dynamicMetadata():set("slipway", "caller", caller.id)
  if scope ~= "any" and not caller[scope] then
    local wanted = scope .. ":" .. settings:get("model")
    return "403", "these credentials lack the scope " .. wanted,
      'Bearer realm="slipway", error="insufficient_scope", scope="' .. wanted .. '"'
  end
end

-- Milliseconds that the caller is willing to wait, or nil and, if it can't be understood, the reason.
local function wish(headers)
  local given = headers:get("x-slipway-timeout-ms")
  if given ~= nil then
    if not string.match(given, "^[1-9]%d?%d?%d?%d?%d?%d?%d?$") then
      return nil, "x-slipway-timeout-ms must be a whole number of milliseconds, 1 to 99999999"
    end
    return tonumber(given)
  end
  local number, unit = string.match(headers:get("grpc-timeout") or "", "^(%d+)([HMSmun])$")
  if number ~= nil then
    return math.max(1, tonumber(number) * SECONDS[unit] * 1000)
  end
end

local function admit(handle)
  local settings, headers = handle:filterContext(), handle:headers()
  if headers:get(":method") == "CONNECT" then
    -- Its target is no path, so it has no route, whose settings these are.
    return "405", "this is no proxy"
  end
  local status, reason, challenge = refusal_of_caller(handle, settings)
  local wished, misunderstood = wish(headers)
  if status == nil and misunderstood ~= nil then
    status, reason = "400", misunderstood
  end
  for _, name in ipairs(CREDENTIALS) do
    headers:remove(name)
  end
  for _, name in ipairs(RESERVED) do
    headers:remove(name)
  end
  if status ~= nil then
    return status, reason, challenge
  end
  local timeout_ms = math.min(settings:get("timeout_ms"), wished or math.huge)
  local now_ms = handle:timestamp()
  headers:replace("x-slipway-arrived", string.format("%.3f", now_ms / 1000))
  headers:replace("x-slipway-deadline", string.format("%.3f", (now_ms + timeout_ms) / 1000))
  headers:replace("x-envoy-upstream-rq-timeout-ms", string.format("%d", math.ceil(timeout_ms)))
end

function envoy_on_request(handle)
  -- Envoy lets a request pass whose script failed; this one is refused.
  local ran, status, reason, challenge = pcall(admit, handle)
  if not ran then
    handle:logErr(status)
    status, reason = "500", "the request could not be checked"
  end
  if status ~= nil then
    local headers = { [":status"] = status }
    if challenge ~= nil then
      headers["www-authenticate"] = challenge
    end
    handle:respond(headers, reason)
  end
end
