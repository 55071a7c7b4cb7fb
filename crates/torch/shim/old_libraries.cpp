// What this compiler's headers take from C and C++ libraries younger than those of manylinux_2_28, for a program that is to start
// there: GLIBC_2.32, GLIBCXX_3.4.26 and GLIBCXX_3.4.29.

#include <new>
#include <sstream>
#include <string>
#include <string_view>

// Says that there may be threads, which is always right.
extern "C" char __libc_single_threaded;
char __libc_single_threaded = 0;

namespace std {

void __throw_bad_array_new_length();
void __throw_bad_array_new_length() { throw bad_array_new_length(); }

}  // namespace std

template std::ostringstream::basic_ostringstream();
template std::stringstream::basic_stringstream();
template std::string::operator std::string_view() const noexcept;
