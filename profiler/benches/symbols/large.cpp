// Much debug information out of little text: one unit of many, made with -DUNIT=u1 -DCOUNT=40. Without UNIT it is the
// program that calls UNITS of them.
#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <regex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#ifdef UNIT
namespace UNIT {
template <int N> struct Item {
    long key;
    std::string name;
    std::vector<std::shared_ptr<Item>> parts;
};

template <int N> __attribute__((noinline)) long work(long count)
{
    std::map<std::string, Item<N>> by_name;
    std::unordered_map<long, std::unique_ptr<Item<N>>> by_key;
    std::deque<Item<N>> in_order;
    for (long key = 0; key < count; key++) {
        by_name[std::to_string(key)].parts.push_back(std::make_shared<Item<N>>());
        by_key.emplace(key, std::make_unique<Item<N>>());
        in_order.push_back({key, "item", {}});
    }
    std::sort(in_order.begin(), in_order.end(), [](auto const &one, auto const &other) { return one.key < other.key; });
    std::function<long(long)> sum = [&](long more) { return more + static_cast<long>(by_name.size()); };
    return sum(count) + by_key.size() + in_order.size();
}

template <int... N> long all(long count, std::integer_sequence<int, N...>)
{
    return (work<N>(count) + ...);
}

long run(long count)
{
    return all(count, std::make_integer_sequence<int, COUNT>());
}
}
#else
#define DECLARED(unit) namespace unit { long run(long); }
#define CALLED(unit) + unit::run(count)
UNITS(DECLARED)

int main(int count, char **)
{
    return (0 UNITS(CALLED)) == 0;
}
#endif
