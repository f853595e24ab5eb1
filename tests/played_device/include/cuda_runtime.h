#pragma once
#include <played_device.hpp>
