-- Ids as text: their two numbers, of up to 19 and 20 digits, are more than a double holds.

-- Whether an id lies above another; what follows them in the text does not matter.
local function is_above(id, other)
  local ms, n = string.match(id, '^(%d+)-(%d+)')
  local other_ms, other_n = string.match(other, '^(%d+)-(%d+)')
  if #ms ~= #other_ms then return #ms > #other_ms end
  if ms ~= other_ms then return ms > other_ms end
  if #n ~= #other_n then return #n > #other_n end
  return n > other_n
end

